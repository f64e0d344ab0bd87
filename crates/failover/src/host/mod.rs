//! Hosts: see `machine` for the states; `table` for what signals mean together.

pub mod table;
