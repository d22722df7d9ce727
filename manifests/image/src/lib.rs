//! weft's container image, built from two static binaries without a container engine.
//!
//! ```text
//!   weft, weft-cni ──▶ elf ──▶ layer ──▶ oci ────▶ weft-VERSION.oci.tar           one index, every architecture
//!                     (fit?)  (one tar)    └─────▶ weft-VERSION-ARCH.docker.tar   for `docker load`
//!   cargo's graph ───▶ cargo ─▶ sbom ────────────▶ weft-VERSION-ARCH.cdx.json     also in the OCI archive, as a referrer
//! ```
//!
//! Everything is a pure function of its inputs: the same binaries, lock file and date give the same bytes. Nothing is in
//! the image but the two binaries: no shell, no certificates, no user list.

pub mod archive;
pub mod build;
pub mod cargo;
pub mod date;
pub mod docker;
pub mod elf;
pub mod layer;
pub mod oci;
pub mod reference;
pub mod sbom;
