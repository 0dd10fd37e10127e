//! Finds the possible ends of strings, 64 bytes at a time.

/// The positions of quotes, backslashes and control characters.
///
/// Nearly all of a body is in strings, most of them short. Searching for each string's end separately costs a call and a few
/// unpredictable branches each. So all of a block's are found together, in code that the compiler vectorizes, and a string ends
/// at the next mark.
#[derive(Debug)]
pub(super) struct Marks<'b> {
    bytes: &'b [u8],
    /// The index of the block that `marks` describes.
    block: usize,
    /// One bit per byte of the block; bits beyond the end of the body are set.
    marks: u64,
}

const BLOCK: usize = 64;

impl<'b> Marks<'b> {
    pub(super) fn new(bytes: &'b [u8]) -> Self {
        Self {
            bytes,
            block: 0,
            marks: marks_of(bytes, 0),
        }
    }

    /// The position of the first mark from `at` on; the body's length if there is none.
    #[inline]
    pub(super) fn next(&mut self, at: usize) -> usize {
        let marks = self.marks >> (at % BLOCK);
        if at / BLOCK == self.block && marks != 0 {
            at + marks.trailing_zeros() as usize
        } else {
            self.next_in_other_blocks(at)
        }
    }

    #[inline(never)]
    fn next_in_other_blocks(&mut self, mut at: usize) -> usize {
        if at / BLOCK == self.block {
            at = (self.block + 1) * BLOCK;
        }
        while at < self.bytes.len() {
            self.block = at / BLOCK;
            self.marks = marks_of(self.bytes, self.block);
            let marks = self.marks >> (at % BLOCK);
            if marks != 0 {
                return at + marks.trailing_zeros() as usize;
            }
            at = (self.block + 1) * BLOCK;
        }
        self.bytes.len()
    }
}

fn marks_of(bytes: &[u8], block: usize) -> u64 {
    let rest = bytes.get(block * BLOCK..).unwrap_or_default();
    match rest.first_chunk() {
        Some(whole) => mark(whole),
        None => {
            let mut padded = [0; BLOCK];
            for (to, from) in padded.iter_mut().zip(rest) {
                *to = *from;
            }
            mark(&padded)
        }
    }
}

#[inline]
fn mark(block: &[u8; BLOCK]) -> u64 {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    // Sets bit `index % 8` in each marked byte.
    let mut bits = [0_u8; BLOCK];
    for ((index, bit), byte) in bits.iter_mut().enumerate().zip(block) {
        let is_marked = (*byte < 0x20) | (*byte == b'"') | (*byte == b'\\');
        *bit = if is_marked { 1 << (index % 8) } else { 0 };
    }
    // The highest byte of the product is the sum of all eight bytes, and thus the union of their bits.
    let (eights, _) = bits.as_chunks();
    eights.iter().rev().fold(0, |marks, eight| {
        (marks << 8) | (u64::from_le_bytes(*eight).wrapping_mul(ONES) >> 56)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn agrees_with_looking_at_every_byte(
            plain in 0_usize..200,
            bytes in proptest::collection::vec(prop_oneof![8 => Just(b'a'), 1 => any::<u8>(), 1 => Just(b'"')], 0..300),
        ) {
            let bytes = [vec![b'a'; plain], bytes].concat();
            let mut marks = Marks::new(&bytes);
            for at in 0..=bytes.len() {
                let is_marked = |byte: &u8| *byte < 0x20 || *byte == b'"' || *byte == b'\\';
                let next = bytes[at..].iter().position(is_marked).map_or(bytes.len(), |next| at + next);
                prop_assert_eq!(marks.next(at), next);
            }
        }
    }
}
