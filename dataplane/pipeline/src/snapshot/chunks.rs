//! An array whose copies share what they don't change.

use std::sync::Arc;

/// Elements of a chunk. One change copies the chunk, and a pointer for each other chunk.
const CHUNK: usize = 64;

/// An array of shared chunks.
#[derive(Clone, Debug, Default)]
pub struct Chunks<T> {
    chunks: Vec<Arc<[T; CHUNK]>>,
}

impl<T: Clone + Default> Chunks<T> {
    /// The element, where the array reaches that far.
    #[inline]
    pub fn get(&self, at: usize) -> Option<&T> {
        self.chunks.get(at / CHUNK).map(|chunk| &chunk[at % CHUNK])
    }
    /// The element, to be changed; the array grows to hold it.
    pub fn get_mut(&mut self, at: usize) -> &mut T {
        while self.chunks.len() <= at / CHUNK {
            self.chunks.push(Arc::new(std::array::from_fn(|_| T::default())));
        }
        &mut Arc::make_mut(&mut self.chunks[at / CHUNK])[at % CHUNK]
    }
    /// All elements, defaults included.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.chunks.iter().flat_map(|chunk| chunk.iter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_keeps_what_it_had() {
        let mut one = Chunks::<u32>::default();
        *one.get_mut(200) = 5;
        let two = one.clone();
        *one.get_mut(200) = 6;
        assert_eq!((one.get(200), two.get(200), two.get(0)), (Some(&6), Some(&5), Some(&0)));
        assert_eq!(two.get(256), None);
        assert!(Arc::ptr_eq(&one.chunks[0], &two.chunks[0]), "untouched chunks are shared");
    }
}
