//! JSON merge patches from a value to another.

use serde_json::{Map, Value};

/// The merge patch that turns one value into another: what is gone is taken away by name, which
/// a patch of the new value alone would leave standing.
pub fn patch(from: &Value, to: &Value) -> Value {
    let (Value::Object(from), Value::Object(to)) = (from, to) else {
        return to.clone();
    };
    let mut changes = Map::new();
    for name in from.keys().filter(|name| !to.contains_key(*name)) {
        changes.insert(name.clone(), Value::Null);
    }
    for (name, value) in to {
        match from.get(name) {
            Some(old) if old == value => {}
            Some(old) => drop(changes.insert(name.clone(), patch(old, value))),
            None => drop(changes.insert(name.clone(), value.clone())),
        }
    }
    Value::Object(changes)
}

/// Adds the fields of one object to another.
pub fn add(into: &mut Value, from: Value) {
    if let (Some(into), Value::Object(from)) = (into.as_object_mut(), from) {
        into.extend(from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_gone_is_taken_away_and_what_is_the_same_is_left_out() {
        let from = json!({"a": 1, "b": [1, 2], "c": {"d": 1, "e": 2}, "f": 1});
        let to = json!({"a": 1, "b": [1], "c": {"e": 3}});
        assert_eq!(
            patch(&from, &to),
            json!({"b": [1], "c": {"d": null, "e": 3}, "f": null})
        );
        assert_eq!(patch(&from, &from), json!({}));
    }
}
