//! Whether a declaration of a file is within the bounds of its kind: read from the schema that the API server enforces,
//! so that no bound stands twice. Rules between fields, and names, are left to the API server.

use anyhow::{Result, bail};
use kube::CustomResourceExt;
use model::Bytes;
use serde_json::Value;

use crate::language::Language;

/// The longest text that is told whole, characters.
const TOLD_MAX: usize = 40;

/// Judges the spec of an object.
///
/// # Errors
/// The first field that is out of bounds, its value, and what to write instead.
pub fn check<Kind: CustomResourceExt>(language: Language, object: &Value) -> Result<()> {
    let crd = serde_json::to_value(Kind::crd())?;
    let schema = crd.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec");
    match schema.and_then(|schema| beyond(schema, &object["spec"], "spec")) {
        Some(beyond) => bail!(beyond.told(language)),
        None => Ok(()),
    }
}

/// A value that is out of bounds.
struct Beyond<'a> {
    path: String,
    value: &'a Value,
    wanted: Wanted,
}

/// What to write instead.
enum Wanted {
    /// A number, a length or a number of entries in a range.
    Range(Option<f64>, Option<f64>),
    /// A size in one of these units.
    Size(String),
}

/// The first value that is out of bounds.
fn beyond<'a>(schema: &Value, value: &'a Value, path: &str) -> Option<Beyond<'a>> {
    if let Some(wanted) = out_of_range(schema, value).or_else(|| no_size(schema, value)) {
        let path = path.to_owned();
        return Some(Beyond {
            path,
            value,
            wanted,
        });
    }
    match value {
        Value::Array(entries) => {
            let schema = schema.get("items")?;
            let mut entries = entries.iter().enumerate();
            entries.find_map(|(index, entry)| {
                let name = entry.get("name").and_then(Value::as_str);
                let name = name.map_or_else(|| index.to_string(), str::to_owned);
                beyond(schema, entry, &format!("{path}[{name}]"))
            })
        }
        Value::Object(fields) => {
            let known = schema.get("properties")?;
            let mut fields = fields.iter();
            fields.find_map(|(name, field)| {
                beyond(known.get(name)?, field, &format!("{path}.{name}"))
            })
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

fn out_of_range(schema: &Value, value: &Value) -> Option<Wanted> {
    let (size, least, most) = match value {
        Value::Number(number) => (number.as_f64()?, "minimum", "maximum"),
        Value::String(text) => (text.chars().count() as f64, "minLength", "maxLength"),
        Value::Array(entries) => (entries.len() as f64, "minItems", "maxItems"),
        Value::Null | Value::Bool(_) | Value::Object(_) => return None,
    };
    let bound = |name: &str| schema.get(name).and_then(Value::as_f64);
    let (least, most) = (bound(least), bound(most));
    let beyond = least.is_some_and(|least| size < least) || most.is_some_and(|most| size > most);
    beyond.then_some(Wanted::Range(least, most))
}

/// Of patterns only those of sizes are judged, such as `^[0-9]+(Mi|Gi)$`: what is asked for must be a number of bytes.
fn no_size(schema: &Value, value: &Value) -> Option<Wanted> {
    let units = schema.get("pattern").and_then(Value::as_str)?;
    let units = units.strip_prefix("^[0-9]+(")?;
    let optional = units.strip_suffix(")?$");
    let units = optional.or_else(|| units.strip_suffix(")$"))?;
    let text = value.as_str()?;
    let unit = text.trim_start_matches(|letter: char| letter.is_ascii_digit());
    let known =
        units.split('|').any(|known| known == unit) || (optional.is_some() && unit.is_empty());
    let is_size = known && Bytes::parse(text).is_ok();
    (!is_size).then(|| Wanted::Size(units.replace('|', ", ")))
}

impl Beyond<'_> {
    /// Field, value and remedy.
    fn told(&self, language: Language) -> String {
        let Self {
            path,
            value,
            wanted,
        } = self;
        let told = match value {
            Value::Array(entries) => {
                let entries = entries.len();
                match language {
                    Language::English => format!("{entries} entries are"),
                    Language::Chinese => format!("{entries} 项"),
                }
            }
            Value::String(text) if text.chars().count() > TOLD_MAX => {
                let begin: String = text.chars().take(TOLD_MAX).collect();
                format!("\"{begin}…\"{}", language.pick(" is", ""))
            }
            other => format!("{other}{}", language.pick(" is", "")),
        };
        let wanted = wanted.told(value, language);
        match language {
            Language::English => format!("{path}: {told} not allowed; write {wanted}"),
            Language::Chinese => format!("{path}:不能为 {told};请填写{wanted}"),
        }
    }
}

impl Wanted {
    fn told(&self, instead_of: &Value, language: Language) -> String {
        let (least, most) = match self {
            Wanted::Range(least, most) => (least, most),
            Wanted::Size(units) => {
                return match language {
                    Language::English => {
                        format!("a whole number and a unit ({units}), 8191Pi at most")
                    }
                    Language::Chinese => format!("整数加单位({units}),不超过 8191Pi"),
                };
            }
        };
        let (english, chinese) = match instead_of {
            Value::String(_) => (" characters", "个字符"),
            Value::Array(_) => (" entries", "项"),
            _ => ("", "的数"),
        };
        match (least, most, language) {
            (Some(least), Some(most), Language::English) => format!("{least} to {most}{english}"),
            (Some(least), Some(most), Language::Chinese) => format!(" {least} 至 {most} {chinese}"),
            (Some(least), None, Language::English) => format!("{least} or more{english}"),
            (Some(least), None, Language::Chinese) => format!("不小于 {least} {chinese}"),
            (None, Some(most), Language::English) => format!("{most}{english} at most"),
            (None, Some(most), Language::Chinese) => format!("不超过 {most} {chinese}"),
            (None, None, language) => language.pick("another one", "其他值").to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use api::{BusinessSystem, Department, Flavor, Image, VirtualMachine, Volume};
    use serde_json::json;

    use super::*;

    fn told<Kind: CustomResourceExt>(language: Language, spec: Value) -> String {
        let judged = check::<Kind>(language, &json!({"spec": spec}));
        judged
            .err()
            .map_or_else(String::new, |error| error.to_string())
    }

    fn tier(change: impl FnOnce(&mut Value)) -> Value {
        let mut tier = json!({"name": "front", "replicas": 64, "flavor": "2c4g", "image": "linux",
            "networks": ["common"], "storagePool": "shared", "systemDiskSize": "40Gi",
            "dataDisks": [{"name": "data", "size": "1Ti"}]});
        change(&mut tier);
        json!({"displayName": "邮件", "tiers": [tier]})
    }

    #[test]
    fn what_the_api_server_takes_is_taken() {
        let english = Language::English;
        assert_eq!(told::<BusinessSystem>(english, tier(|_| ())), "");
        assert_eq!(
            told::<Flavor>(english, json!({"cpu": 256, "memory": "1Gi"})),
            ""
        );
        // What is missing or of another type is told where the object is read.
        assert_eq!(told::<Flavor>(english, json!({"cpu": "two"})), "");
        assert_eq!(told::<Flavor>(english, Value::Null), "");
        for size in ["40Gi", "41943040Ki", "42949672960"] {
            assert_eq!(
                told::<Image>(english, json!({"minimumSize": size})),
                "",
                "{size}"
            );
        }
    }

    #[test]
    fn what_is_out_of_bounds_is_told_with_field_value_and_remedy() {
        let english = Language::English;
        let replicas = || tier(|tier| tier["replicas"] = json!(2_000_000_000));
        assert_eq!(
            told::<BusinessSystem>(english, replicas()),
            "spec.tiers[front].replicas: 2000000000 is not allowed; write 0 to 64"
        );
        assert_eq!(
            told::<BusinessSystem>(Language::Chinese, replicas()),
            "spec.tiers[front].replicas:不能为 2000000000;请填写 0 至 64 的数"
        );
        assert_eq!(
            told::<BusinessSystem>(
                english,
                tier(|tier| tier["dataDisks"][0]["size"] = json!("99999999999Ti"))
            ),
            "spec.tiers[front].dataDisks[data].size: \"99999999999Ti\" is not allowed; write a whole number and a unit (Mi, Gi, Ti), 8191Pi at most"
        );
        assert_eq!(
            told::<Flavor>(english, json!({"cpu": 0, "memory": "1Gi"})),
            "spec.cpu: 0 is not allowed; write 1 to 256"
        );
        assert_eq!(
            told::<VirtualMachine>(english, json!({"disks": []})),
            "spec.disks: 0 entries are not allowed; write 1 to 17 entries"
        );
        assert_eq!(
            told::<VirtualMachine>(Language::Chinese, json!({"networks": []})),
            "spec.networks:不能为 0 项;请填写 1 至 8 项"
        );
        assert_eq!(
            told::<VirtualMachine>(english, json!({"image": "i".repeat(64)})),
            format!(
                "spec.image: \"{}…\" is not allowed; write 1 to 63 characters",
                "i".repeat(40)
            )
        );
        let quota = json!({"quota": {"cpu": 1, "memory": "1Gi", "storage": "1Pi"}});
        let wrong = told::<Department>(english, quota);
        assert!(wrong.starts_with("spec.quota.storage: \"1Pi\" "), "{wrong}");
        let wrong = told::<Volume>(english, json!({"pool": "shared", "size": "Gi"}));
        assert!(wrong.starts_with("spec.size: \"Gi\" "), "{wrong}");
    }
}
