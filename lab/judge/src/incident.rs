//! Reads the product's Incidents from their JSON, with a reader of its own.

use serde_json::Value;

/// What a judge needs of an Incident. Times are nanoseconds since 1970; the API keeps whole seconds
/// of some, so each may be up to a second early.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Incident {
    /// Name of the object.
    pub name: String,
    /// Root cause, such as `host-silent/h2/BOOT-ID`.
    pub cause: String,
    /// Host where it began.
    pub host: Option<String>,
    /// When it was opened.
    pub opened_at: u64,
    /// When every affected system answered again.
    pub recovered_at: Option<u64>,
    /// When it was closed.
    pub closed_at: Option<u64>,
    /// Affected systems.
    pub systems: Vec<Affected>,
}

/// A business system as an Incident tells it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Affected {
    /// Its name.
    pub name: String,
    /// Seconds down.
    pub down_seconds: f64,
    /// Seconds that the product did not observe.
    pub unobserved_seconds: f64,
}

/// Reads one object; says which field is missing or wrong.
pub fn read(object: &Value) -> Result<Incident, String> {
    let text = |path: &str| object.pointer(path).and_then(Value::as_str);
    let need = |path: &str| text(path).ok_or_else(|| format!("{path} is missing: {object}"));
    let moment = |path: &str| text(path).map(parse).transpose();
    let systems = object.pointer("/status/systems").and_then(Value::as_array);
    Ok(Incident {
        name: need("/metadata/name")?.to_owned(),
        cause: need("/spec/cause")?.to_owned(),
        host: text("/spec/host").map(str::to_owned),
        opened_at: parse(need("/spec/openedAt")?)?,
        recovered_at: moment("/status/recoveredAt")?,
        closed_at: moment("/status/closedAt")?,
        systems: systems
            .into_iter()
            .flatten()
            .map(affected)
            .collect::<Result<_, _>>()?,
    })
}

fn affected(system: &Value) -> Result<Affected, String> {
    let number = |name: &str| {
        system[name]
            .as_f64()
            .ok_or_else(|| format!("{name} is no number: {system}"))
    };
    Ok(Affected {
        name: system["name"]
            .as_str()
            .ok_or_else(|| format!("name is missing: {system}"))?
            .to_owned(),
        down_seconds: number("downtimeSeconds")?,
        unobserved_seconds: number("unobservedSeconds")?,
    })
}

fn parse(text: &str) -> Result<u64, String> {
    let at: jiff::Timestamp = text
        .parse()
        .map_err(|error| format!("{text:?} is no time: {error}"))?;
    u64::try_from(at.as_nanosecond()).map_err(|_| format!("{text:?} lies before 1970"))
}
