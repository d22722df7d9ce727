//! A row of bits: which addresses are taken.

/// Bits, packed into bytes so that they can be written to a file as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bitmap {
    bytes: Vec<u8>,
    length: u32,
}

impl Bitmap {
    /// `length` clear bits.
    pub(crate) fn new(length: u32) -> Self {
        Self { bytes: vec![0; Self::bytes_for(length)], length }
    }

    /// Bytes that `length` bits take.
    pub(crate) fn bytes_for(length: u32) -> usize {
        length.div_ceil(8) as usize
    }

    /// The bits in `bytes`; `None` if it is not exactly as many bytes as `length` bits take.
    pub(crate) fn from_bytes(bytes: &[u8], length: u32) -> Option<Self> {
        (bytes.len() == Self::bytes_for(length)).then(|| Self { bytes: bytes.to_vec(), length })
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether the bit is set. Bits beyond the end are.
    pub(crate) fn is_set(&self, index: u32) -> bool {
        index >= self.length || self.bytes.get((index / 8) as usize).is_none_or(|byte| byte >> (index % 8) & 1 == 1)
    }

    /// Sets or clears a bit; there is none beyond the end.
    pub(crate) fn assign(&mut self, index: u32, on: bool) {
        if index >= self.length {
            return;
        }
        if let Some(byte) = self.bytes.get_mut((index / 8) as usize) {
            let mask = 1 << (index % 8);
            *byte = if on { *byte | mask } else { *byte & !mask };
        }
    }

    /// Sets all bits that are set in `other`, a row of the same length.
    pub(crate) fn include(&mut self, other: &Self) {
        self.bytes.iter_mut().zip(&other.bytes).for_each(|(own, other)| *own |= other);
    }

    /// The first clear bit at or after `from` that `suits`; full bytes are passed over at once.
    pub(crate) fn first_clear(&self, from: u32, mut suits: impl FnMut(u32) -> bool) -> Option<u32> {
        let mut index = from;
        while index < self.length {
            let byte = *self.bytes.get((index / 8) as usize)?;
            if byte == 0xff {
                index = (index / 8 + 1) * 8;
                continue;
            }
            if byte >> (index % 8) & 1 == 0 && suits(index) {
                return Some(index);
            }
            index += 1;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_first_clear_bit_is_what_counting_finds(length in 1u32..200, set: Vec<u8>, from in 0u32..200) {
            let mut bitmap = Bitmap::new(length);
            for bit in &set {
                bitmap.assign(u32::from(*bit), true);
            }
            let expected = (from..length).find(|bit| !set.contains(&u8::try_from(*bit).unwrap()));
            prop_assert_eq!(bitmap.first_clear(from, |_| true), expected);
            prop_assert_eq!(Bitmap::from_bytes(bitmap.as_bytes(), length).unwrap(), bitmap);
        }
    }
}
