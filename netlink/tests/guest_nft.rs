//! The same as `nft.rs`, on the oldest kernel and whatever else a guest has: each knows other attributes and words.

#[path = "nft.rs"]
mod nft;
