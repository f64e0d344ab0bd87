//! Tables for people: columns aligned by display width, Chinese characters included.

use unicode_width::UnicodeWidthStr;

/// A table under construction.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with a header row.
    pub fn new<const N: usize>(header: [&str; N]) -> Self {
        Self {
            rows: vec![header.iter().map(|text| (*text).to_owned()).collect()],
        }
    }

    /// Adds a row.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.to_vec());
    }

    /// The table as text; nothing where it has no rows.
    pub fn render_rows(&self) -> String {
        // The first one is the header.
        match self.rows.len() {
            0 | 1 => String::new(),
            _ => self.render(),
        }
    }

    /// The table as text, every line ended.
    pub fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|column| {
                self.rows
                    .iter()
                    .filter_map(|row| row.get(column))
                    .map(|cell| cell.width())
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(cell);
                line.extend(std::iter::repeat_n(' ', width - cell.width() + 2));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aligns_wide_characters() {
        let mut table = Table::new(["NAME", "STATE"]);
        table.row(["网站群".to_owned(), "正常".to_owned()]);
        table.row(["oa".to_owned(), "x".to_owned()]);
        assert_eq!(table.render(), "NAME    STATE\n网站群  正常\noa      x\n");
    }
}
