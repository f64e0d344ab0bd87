//! Which hosts each item may ever be on.
//!
//! Transient resources stay claimed at home, so what a host can take of them is fixed before the
//! first move: its capacity less the needs of all items whose home it is. An item that fits
//! nowhere else is bound to stay, and what it needs of the other resources is taken for good, as
//! is its place in an exclusive group; which may bind more items. A search that knows this never
//! looks at hosts that no legal placement can use. On the public benchmark's instances with
//! transient resources these are half to three quarters of all pairs, nearly all for large items.

use super::model::Model;

/// Hosts of one item are also kept as a list when there are at most this many of them, or at
/// most this part of all: others are soon found by drawing any host and asking the bits.
const LIST: usize = 128;
const LIST_PART: usize = 8;

/// For each item the hosts that some legal placement may have it on, and always its home.
#[derive(Clone, Debug, Default)]
pub(super) struct Reach {
    words: usize,
    bits: Vec<u64>,
    /// Lists one after the other, and where each begins.
    hosts: Vec<u32>,
    starts: Vec<usize>,
}

impl Reach {
    /// Works out the reach of every item of a model whose other fields are filled.
    pub(super) fn new(model: &Model) -> Reach {
        let mut room = Room::new(model);
        let words = model.hosts.div_ceil(64);
        let mut bits = vec![0u64; words * model.items];
        let mut count = vec![0u32; model.items];
        let (roomy, tight) = room.split(model);
        for item in 0..model.items as u32 {
            let row = &mut bits[item as usize * words..][..words];
            row.copy_from_slice(&roomy);
            for &host in &tight {
                if room.takes(model, item, host) {
                    row[host as usize / 64] |= 1 << (host % 64);
                }
            }
            count[item as usize] = row.iter().map(|word| word.count_ones()).sum();
        }
        let mut bound: Vec<u32> = (0..model.items as u32)
            .filter(|&i| count[i as usize] == 1)
            .collect();
        while !bound.is_empty() {
            let changed = room.bind(model, &bound);
            bound.clear();
            for item in 0..model.items as u32 {
                let i = item as usize;
                let row = &mut bits[i * words..][..words];
                if count[i] == 1 {
                    continue;
                }
                for &host in &changed {
                    let (word, bit) = (host as usize / 64, 1 << (host % 64));
                    if row[word] & bit != 0 && !room.takes(model, item, host) {
                        row[word] &= !bit;
                        count[i] -= 1;
                    }
                }
                if count[i] == 1 {
                    bound.push(item);
                }
            }
        }
        let mut reach = Reach {
            words,
            bits,
            hosts: Vec::new(),
            starts: vec![0],
        };
        let most = LIST.max(model.hosts / LIST_PART);
        for item in 0..model.items as u32 {
            if count[item as usize] as usize <= most {
                let first = item as usize * words;
                for (word, bits) in reach.bits[first..first + words].iter().enumerate() {
                    let mut left = *bits;
                    while left != 0 {
                        reach.hosts.push(word as u32 * 64 + left.trailing_zeros());
                        left &= left - 1;
                    }
                }
            }
            reach.starts.push(reach.hosts.len());
        }
        reach
    }

    #[inline]
    fn has(&self, item: u32, host: u32) -> bool {
        self.bits[item as usize * self.words + host as usize / 64] >> (host % 64) & 1 == 1
    }
}

/// What each host can take besides the items that are bound to it.
struct Room {
    /// Per host and resource: capacity less what is taken for good.
    free: Vec<i64>,
    /// Per host: groups of the items bound to it, exclusive ones only.
    groups: Vec<Vec<u32>>,
}

impl Room {
    fn new(model: &Model) -> Room {
        let r = model.resources;
        let mut free = model.capacity.clone();
        for item in 0..model.items as u32 {
            let home = model.home(item) as usize;
            let claims = &model.need(item)[..model.transients];
            for (free, n) in free[home * r..].iter_mut().zip(claims) {
                *free -= n;
            }
        }
        Room {
            free,
            groups: vec![Vec::new(); model.hosts],
        }
    }

    /// The hosts, as bits, that the largest need of every resource fits together, so that nobody
    /// has to ask for each item; and the others, as a list. Classes make every host one of those.
    fn split(&self, model: &Model) -> (Vec<u64>, Vec<u32>) {
        let r = model.resources;
        let mut largest = vec![0; r];
        for item in 0..model.items as u32 {
            for (largest, &n) in largest.iter_mut().zip(model.need(item)) {
                *largest = n.max(*largest);
            }
        }
        let open = model.classes.iter().all(Vec::is_empty);
        let mut roomy = vec![0u64; model.hosts.div_ceil(64)];
        let mut tight = Vec::new();
        for host in 0..model.hosts {
            let free = &self.free[host * r..(host + 1) * r];
            if open && largest.iter().zip(free).all(|(n, free)| n <= free) {
                roomy[host / 64] |= 1 << (host % 64);
            } else {
                tight.push(host as u32);
            }
        }
        (roomy, tight)
    }

    fn takes(&self, model: &Model, item: u32, host: u32) -> bool {
        if model.home(item) == host {
            return true;
        }
        let free = &self.free[host as usize * model.resources..];
        model.need(item).iter().zip(free).all(|(n, free)| n <= free)
            && model.class_allows(item, host)
            && !self.groups[host as usize].contains(&model.group(item))
    }

    /// Takes what items bound to their homes need; returns those hosts.
    fn bind(&mut self, model: &Model, bound: &[u32]) -> Vec<u32> {
        let (r, t) = (model.resources, model.transients);
        let mut changed = Vec::with_capacity(bound.len());
        for &item in bound {
            let home = model.home(item);
            let free = &mut self.free[home as usize * r..][t..r];
            for (free, n) in free.iter_mut().zip(&model.need(item)[t..]) {
                *free -= n;
            }
            if model.exclusive[model.group(item) as usize] {
                self.groups[home as usize].push(model.group(item));
            }
            changed.push(home);
        }
        changed.sort_unstable();
        changed.dedup();
        changed
    }
}

impl Model {
    /// Whether any legal placement may have an item on a host; always true of its home.
    #[inline]
    pub fn may_reach(&self, item: u32, host: u32) -> bool {
        self.reach.has(item, host)
    }

    /// All hosts that an item may ever be on, home included, when they are few; an empty list
    /// when they are so many that a host drawn by chance is often one.
    #[inline]
    pub fn reach(&self, item: u32) -> &[u32] {
        let i = item as usize;
        &self.reach.hosts[self.reach.starts[i]..self.reach.starts[i + 1]]
    }
}
