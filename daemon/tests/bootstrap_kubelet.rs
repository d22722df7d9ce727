//! kubelet and the control plane as bring-up runs and waits for them: real processes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic is how a test fails")]

#[path = "bootstrap_kubelet/control_plane.rs"]
mod control_plane;
#[path = "bootstrap_kubelet/services.rs"]
mod services;
#[path = "bootstrap_kubelet/waiting.rs"]
mod waiting;
