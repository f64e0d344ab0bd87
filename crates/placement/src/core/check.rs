//! Checks of a stated problem, so that nothing after it can be out of range.

use super::error::ModelError;
use super::spec::{PairCost, Spec};

fn length(
    what: &'static str,
    index: usize,
    of: &'static str,
    found: usize,
    expected: usize,
) -> Result<(), ModelError> {
    if found == expected {
        Ok(())
    } else {
        Err(ModelError::Length {
            what,
            index,
            of,
            found,
            expected,
        })
    }
}

fn reference(
    what: &'static str,
    index: usize,
    of: &'static str,
    found: usize,
    count: usize,
) -> Result<(), ModelError> {
    if found < count {
        Ok(())
    } else {
        Err(ModelError::Reference {
            what,
            index,
            of,
            found,
            count,
        })
    }
}

fn non_negative(
    what: &'static str,
    index: usize,
    of: &'static str,
    values: &[i64],
) -> Result<(), ModelError> {
    match values.iter().find(|&&v| v < 0) {
        Some(&found) => Err(ModelError::Negative {
            what,
            index,
            of,
            found,
        }),
        None => Ok(()),
    }
}

/// Refuses what later code could not index or add up.
pub(super) fn check(spec: &Spec) -> Result<(), ModelError> {
    let (resources, hosts) = (spec.resources.len(), spec.hosts.len());
    for (what, found) in [
        ("hosts", hosts),
        ("items", spec.items.len()),
        ("groups", spec.groups.len()),
    ] {
        if found >= i32::MAX as usize {
            return Err(ModelError::TooMany { what, found });
        }
    }
    for (i, r) in spec.resources.iter().enumerate() {
        non_negative("resource", i, "weight", &[r.weight])?;
    }
    for (i, h) in spec.hosts.iter().enumerate() {
        length("host", i, "capacities", h.capacity.len(), resources)?;
        length("host", i, "safety loads", h.safety.len(), resources)?;
        non_negative("host", i, "capacity", &h.capacity)?;
        non_negative("host", i, "safety load", &h.safety)?;
    }
    for (i, g) in spec.groups.iter().enumerate() {
        for &t in &g.depends_on {
            reference("group", i, "group", t as usize, spec.groups.len())?;
        }
    }
    for (i, item) in spec.items.iter().enumerate() {
        length("item", i, "needs", item.need.len(), resources)?;
        non_negative("item", i, "need", &item.need)?;
        non_negative("item", i, "move cost", &[item.move_cost])?;
        reference("item", i, "group", item.group as usize, spec.groups.len())?;
        reference("item", i, "class", item.class as usize, spec.classes.len())?;
        reference("item", i, "host", item.home as usize, hosts)?;
    }
    for (i, class) in spec.classes.iter().enumerate() {
        if !class.is_empty() {
            length("class", i, "flags", class.len(), hosts)?;
        }
    }
    for (i, b) in spec.balances.iter().enumerate() {
        reference("balance", i, "resource", b.first.max(b.second), resources)?;
        non_negative("balance", i, "target or weight", &[b.target, b.weight])?;
    }
    non_negative("group move", 0, "weight", &[spec.group_move_weight])?;
    if let PairCost::Uniform(cost) = &spec.pair_cost {
        non_negative("pair cost", 0, "cost", &[*cost])?;
    }
    if let PairCost::Matrix { weight, of } = &spec.pair_cost {
        length(
            "pair cost",
            0,
            "entries",
            of.len(),
            hosts.saturating_mul(hosts),
        )?;
        non_negative("pair cost", 0, "weight", &[*weight])?;
    }
    bounds(spec)
}

/// Refuses numbers whose worst sums could leave 64 bits, so that no later arithmetic has to check.
fn bounds(spec: &Spec) -> Result<(), ModelError> {
    const LIMIT: i128 = (i64::MAX / 16) as i128;
    let wide = |v: i64| i128::from(v);
    let mut cost = 0i128;
    let mut reach = Vec::with_capacity(spec.resources.len());
    for (r, resource) in spec.resources.iter().enumerate() {
        let needs: i128 = spec.items.iter().map(|i| wide(i.need[r])).sum();
        let caps: i128 = spec
            .hosts
            .iter()
            .map(|h| wide(h.capacity[r]) + wide(h.safety[r]))
            .sum();
        if needs + caps > LIMIT {
            return Err(ModelError::TooLarge {
                what: "the load of a resource",
            });
        }
        reach.push(needs + caps);
        cost = cost.saturating_add(needs.saturating_mul(wide(resource.weight)));
    }
    for b in &spec.balances {
        let miss = reach[b.first]
            .saturating_mul(wide(b.target))
            .saturating_add(reach[b.second]);
        cost = cost.saturating_add(miss.saturating_mul(wide(b.weight)));
    }
    let pair = match &spec.pair_cost {
        PairCost::Uniform(c) => wide(*c),
        PairCost::Matrix { weight, of } => {
            wide(*weight) * i128::from(of.iter().copied().max().unwrap_or(0))
        }
    };
    let items = spec.items.len() as i128;
    cost = cost.saturating_add(pair.saturating_mul(items));
    cost = cost.saturating_add(spec.items.iter().map(|i| wide(i.move_cost)).sum());
    cost = cost.saturating_add(items.saturating_mul(wide(spec.group_move_weight)));
    if cost > LIMIT {
        Err(ModelError::TooLarge { what: "the cost" })
    } else {
        Ok(())
    }
}
