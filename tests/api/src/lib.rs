//! Tests of what the API server itself refuses: schemas, CEL rules, roles and admission
//! policies, against a real control plane. `cases` are data; `tests/` runs them.

pub mod cases;
pub mod server;
