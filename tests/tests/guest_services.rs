//! The cases of Services on a guest's kernel, which has ip_vs: the same files as of the test `service`.

#[path = "service/main.rs"]
mod service;
