//! Reads the part of YAML that NoCloud seeds are written in: block and flow mappings and sequences,
//! plain and quoted scalars, comments. JSON is part of it.
//!
//! Anchors, tags, block scalars, several documents and tabs are refused with the line that holds
//! them: a guest that misreads its addresses is worse than one that says why it has none.

use std::fmt;

/// Longest text that is read, bytes.
pub const TEXT_BYTES_MAXIMUM: usize = 64 * 1024;
/// Deepest nesting that is read.
const DEPTH_MAXIMUM: usize = 16;

/// A value. Scalars stay texts: the reader of a field knows what it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Nothing after the colon, or `null`.
    Null,
    /// A scalar.
    Scalar(String),
    /// A list.
    Sequence(Vec<Value>),
    /// A mapping, in the order of the text.
    Mapping(Vec<(String, Value)>),
}

/// Why a text is not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct YamlError {
    /// Line, from 1.
    pub line: usize,
    /// What is wrong and what to write instead.
    pub message: String,
}

impl fmt::Display for YamlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.message)
    }
}

impl std::error::Error for YamlError {}

impl Value {
    /// The value of `key`, when this is a mapping that has it.
    pub fn get(&self, key: &str) -> Option<&Value> {
        match self {
            Value::Mapping(entries) => entries
                .iter()
                .find(|(name, _)| name == key)
                .map(|(_, value)| value),
            _ => None,
        }
    }

    /// The scalar's text.
    pub fn text(&self) -> Option<&str> {
        match self {
            Value::Scalar(text) => Some(text),
            _ => None,
        }
    }

    /// The items of a sequence; none for anything else.
    pub fn items(&self) -> &[Value] {
        match self {
            Value::Sequence(items) => items,
            _ => &[],
        }
    }

    /// The entries of a mapping; none for anything else.
    pub fn entries(&self) -> &[(String, Value)] {
        match self {
            Value::Mapping(entries) => entries,
            _ => &[],
        }
    }
}

/// Reads one document. An empty text is [`Value::Null`].
pub fn parse(text: &str) -> Result<Value, YamlError> {
    if text.len() > TEXT_BYTES_MAXIMUM {
        return Err(error(
            1,
            format!("longer than {TEXT_BYTES_MAXIMUM} bytes; shorten it"),
        ));
    }
    let mut lines = split_lines(text)?;
    if lines.is_empty() {
        return Ok(Value::Null);
    }
    let mut position = 0;
    let indent = lines[0].indent;
    let value = parse_node(&mut lines, &mut position, indent, 0)?;
    match lines.get(position) {
        Some(line) => Err(error(
            line.number,
            "is indented less than, or differently from, what it follows".to_owned(),
        )),
        None => Ok(value),
    }
}

/// A line that holds something.
struct Line {
    number: usize,
    indent: usize,
    content: String,
}

fn error(line: usize, message: String) -> YamlError {
    YamlError { line, message }
}

fn split_lines(text: &str) -> Result<Vec<Line>, YamlError> {
    let mut lines = Vec::new();
    for (index, raw) in text.lines().enumerate() {
        let number = index + 1;
        let content = without_comment(raw).trim_end();
        let indent = content.len() - content.trim_start_matches(' ').len();
        let content = &content[indent..];
        if content.is_empty() || (content == "---" && lines.is_empty()) {
            continue;
        }
        if content.starts_with('\t') {
            return Err(error(
                number,
                "is indented with a tab; use spaces".to_owned(),
            ));
        }
        if content == "---" || content == "..." {
            return Err(error(
                number,
                "begins a second document; keep to one".to_owned(),
            ));
        }
        lines.push(Line {
            number,
            indent,
            content: content.to_owned(),
        });
    }
    Ok(lines)
}

/// The part of a line before its comment: a `#` at the beginning or after a space, outside quotes.
fn without_comment(line: &str) -> &str {
    let mut quote = None;
    let mut before = ' ';
    for (at, character) in line.char_indices() {
        match quote {
            Some(open) if character == open && before != '\\' => quote = None,
            Some(_) => {}
            None if character == '#' && (before == ' ' || before == '\t') => return &line[..at],
            None if (character == '"' || character == '\'') && " [{,:".contains(before) => {
                quote = Some(character)
            }
            None => {}
        }
        before = character;
    }
    line
}

fn parse_node(
    lines: &mut [Line],
    position: &mut usize,
    indent: usize,
    depth: usize,
) -> Result<Value, YamlError> {
    let line = &lines[*position];
    if depth > DEPTH_MAXIMUM {
        return Err(error(
            line.number,
            format!("is nested deeper than {DEPTH_MAXIMUM} levels"),
        ));
    }
    if is_item(&line.content) {
        parse_sequence(lines, position, indent, depth)
    } else if split_key(&line.content).is_some() && !line.content.starts_with(['{', '[']) {
        parse_mapping(lines, position, indent, depth)
    } else {
        let number = line.number;
        let text = take_inline(lines, position)?;
        parse_inline(&text, number, depth)
    }
}

fn is_item(content: &str) -> bool {
    content == "-" || content.starts_with("- ")
}

fn parse_sequence(
    lines: &mut [Line],
    position: &mut usize,
    indent: usize,
    depth: usize,
) -> Result<Value, YamlError> {
    let mut items = Vec::new();
    while let Some(line) = lines.get_mut(*position) {
        if line.indent != indent || !is_item(&line.content) {
            break;
        }
        let rest = line.content[1..].trim_start();
        if rest.is_empty() {
            *position += 1;
            items.push(parse_below(lines, position, indent + 1, depth)?);
        } else {
            // The item's own text begins a node that is indented to where it stands.
            let inner = indent + line.content.len() - rest.len();
            line.content = rest.to_owned();
            line.indent = inner;
            items.push(parse_node(lines, position, inner, depth + 1)?);
        }
    }
    Ok(Value::Sequence(items))
}

fn parse_mapping(
    lines: &mut [Line],
    position: &mut usize,
    indent: usize,
    depth: usize,
) -> Result<Value, YamlError> {
    let mut entries: Vec<(String, Value)> = Vec::new();
    while let Some(line) = lines.get_mut(*position) {
        if line.indent != indent || is_item(&line.content) {
            break;
        }
        let number = line.number;
        let Some((key, rest)) = split_key(&line.content) else {
            return Err(error(
                number,
                "is no 'key: value'; put a colon and a space after the key".to_owned(),
            ));
        };
        if entries.iter().any(|(name, _)| *name == key) {
            return Err(error(number, format!("key {key:?} stands twice; keep one")));
        }
        let value = if rest.is_empty() {
            *position += 1;
            parse_below(lines, position, indent, depth)?
        } else {
            line.content = rest;
            let text = take_inline(lines, position)?;
            parse_inline(&text, number, depth)?
        };
        entries.push((key, value));
    }
    Ok(Value::Mapping(entries))
}

/// The value below a key or a bare dash: deeper lines, or (below a key) items at the same indent.
fn parse_below(
    lines: &mut [Line],
    position: &mut usize,
    indent: usize,
    depth: usize,
) -> Result<Value, YamlError> {
    match lines.get(*position) {
        Some(line) if line.indent > indent || (line.indent == indent && is_item(&line.content)) => {
            let inner = line.indent;
            parse_node(lines, position, inner, depth + 1)
        }
        _ => Ok(Value::Null),
    }
}

/// Splits `key: rest`; the key may be quoted.
fn split_key(content: &str) -> Option<(String, String)> {
    if content.starts_with(['"', '\'']) {
        let (key, used) = quoted(content, 0).ok()?;
        let rest = content[used..].trim_start().strip_prefix(':')?;
        return (rest.is_empty() || rest.starts_with(' ')).then(|| (key, rest.trim().to_owned()));
    }
    let at = content
        .find(": ")
        .or_else(|| content.ends_with(':').then(|| content.len() - 1))?;
    let (key, rest) = (content[..at].trim(), content[at + 1..].trim());
    (!key.is_empty()).then(|| (key.to_owned(), rest.to_owned()))
}

/// Takes the text of this line, and of the following ones while a flow collection stays open.
fn take_inline(lines: &[Line], position: &mut usize) -> Result<String, YamlError> {
    let first = lines[*position].number;
    let mut text = lines[*position].content.clone();
    *position += 1;
    if text.starts_with(['{', '[']) {
        while !is_balanced(&text) {
            let line = lines
                .get(*position)
                .ok_or_else(|| error(first, "opens a bracket that is never closed".to_owned()))?;
            text.push(' ');
            text.push_str(&line.content);
            *position += 1;
        }
    }
    Ok(text)
}

fn is_balanced(text: &str) -> bool {
    let (mut open, mut quote, mut escaped) = (0usize, None, false);
    for character in text.chars() {
        match quote {
            Some(_) if escaped => escaped = false,
            Some('"') if character == '\\' => escaped = true,
            Some(mark) if character == mark => quote = None,
            Some(_) => {}
            None => match character {
                '"' | '\'' => quote = Some(character),
                '{' | '[' => open += 1,
                '}' | ']' => open = open.saturating_sub(1),
                _ => {}
            },
        }
    }
    open == 0 && quote.is_none()
}

/// Reads a scalar or a flow collection that makes up the whole of `text`.
fn parse_inline(text: &str, line: usize, depth: usize) -> Result<Value, YamlError> {
    let (value, used) = flow_value(text, 0, line, depth, &[])?;
    match text[used..].trim() {
        "" => Ok(value),
        rest => Err(error(
            line,
            format!("has {rest:?} after the value; remove it or quote the whole"),
        )),
    }
}

/// Reads one value from `text` at `at`; plain scalars end at one of `stops`. Returns where it ended.
fn flow_value(
    text: &str,
    at: usize,
    line: usize,
    depth: usize,
    stops: &[char],
) -> Result<(Value, usize), YamlError> {
    if depth > DEPTH_MAXIMUM {
        return Err(error(
            line,
            format!("is nested deeper than {DEPTH_MAXIMUM} levels"),
        ));
    }
    let at = at + (text[at..].len() - text[at..].trim_start().len());
    match text[at..].chars().next() {
        Some('{') => flow_mapping(text, at + 1, line, depth + 1),
        Some('[') => flow_sequence(text, at + 1, line, depth + 1),
        Some('"' | '\'') => {
            let (scalar, used) = quoted(&text[at..], line)?;
            Ok((Value::Scalar(scalar), at + used))
        }
        Some(mark @ ('&' | '*' | '!' | '|' | '>' | '%' | '@' | '`')) => Err(error(
            line,
            format!("a value beginning with {mark:?} is not supported here; quote it"),
        )),
        _ => {
            let length = text[at..].find(stops).unwrap_or(text[at..].len());
            let scalar = text[at..at + length].trim();
            let value = match scalar {
                "" | "~" | "null" => Value::Null,
                other => Value::Scalar(other.to_owned()),
            };
            Ok((value, at + length))
        }
    }
}

fn flow_sequence(
    text: &str,
    mut at: usize,
    line: usize,
    depth: usize,
) -> Result<(Value, usize), YamlError> {
    let mut items = Vec::new();
    loop {
        at = skip_spaces(text, at);
        if text[at..].starts_with(']') {
            return Ok((Value::Sequence(items), at + 1));
        }
        let (value, end) = flow_value(text, at, line, depth, &[',', ']', '}'])?;
        items.push(value);
        at = after_comma(text, end, ']', line)?;
    }
}

fn flow_mapping(
    text: &str,
    mut at: usize,
    line: usize,
    depth: usize,
) -> Result<(Value, usize), YamlError> {
    let mut entries: Vec<(String, Value)> = Vec::new();
    loop {
        at = skip_spaces(text, at);
        if text[at..].starts_with('}') {
            return Ok((Value::Mapping(entries), at + 1));
        }
        let (key, end) = flow_value(text, at, line, depth, &[':', ',', '}', ']'])?;
        let Value::Scalar(key) = key else {
            return Err(error(
                line,
                "a key must be a plain or quoted text".to_owned(),
            ));
        };
        if entries.iter().any(|(name, _)| *name == key) {
            return Err(error(line, format!("key {key:?} stands twice; keep one")));
        }
        let end = skip_spaces(text, end);
        let Some(rest) = text[end..].strip_prefix(':') else {
            return Err(error(
                line,
                format!("key {key:?} has no value; write '{key}: value'"),
            ));
        };
        let (value, end) =
            flow_value(text, text.len() - rest.len(), line, depth, &[',', '}', ']'])?;
        entries.push((key, value));
        at = after_comma(text, end, '}', line)?;
    }
}

/// Position after a comma, or of `close`.
fn after_comma(text: &str, at: usize, close: char, line: usize) -> Result<usize, YamlError> {
    let at = skip_spaces(text, at);
    match text[at..].chars().next() {
        Some(',') => Ok(at + 1),
        Some(character) if character == close => Ok(at),
        _ => Err(error(
            line,
            format!("expected ',' or {close:?} in a flow collection"),
        )),
    }
}

fn skip_spaces(text: &str, at: usize) -> usize {
    text.len() - text[at..].trim_start().len()
}

/// Reads a quoted text at the beginning of `text`; returns it and how many bytes it took.
fn quoted(text: &str, line: usize) -> Result<(String, usize), YamlError> {
    let mut characters = text.char_indices();
    let mark = characters.next().map_or('"', |(_, character)| character);
    let mut out = String::new();
    while let Some((at, character)) = characters.next() {
        match character {
            '\'' if mark == '\'' && text[at + 1..].starts_with('\'') => {
                characters.next();
                out.push('\'');
            }
            '\\' if mark == '"' => out.push(escape(&mut characters, line)?),
            other if other == mark => return Ok((out, at + 1)),
            other => out.push(other),
        }
    }
    Err(error(line, "opens a quote that is never closed".to_owned()))
}

fn escape(characters: &mut std::str::CharIndices<'_>, line: usize) -> Result<char, YamlError> {
    match characters.next().map(|(_, character)| character) {
        Some('n') => Ok('\n'),
        Some('t') => Ok('\t'),
        Some('r') => Ok('\r'),
        Some(same @ ('"' | '\\' | '/')) => Ok(same),
        Some('u') => {
            let digits: String = characters
                .by_ref()
                .take(4)
                .map(|(_, character)| character)
                .collect();
            u32::from_str_radix(&digits, 16)
                .ok()
                .and_then(char::from_u32)
                .ok_or_else(|| error(line, format!("\\u{digits} is no character")))
        }
        other => Err(error(
            line,
            format!("unknown escape \\{}", other.unwrap_or(' ')),
        )),
    }
}

#[cfg(test)]
#[path = "yaml_tests.rs"]
mod tests;
