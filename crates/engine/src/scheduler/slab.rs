//! Things found by number in one step, whose numbers are never given out twice.

/// A vector with holes. A key holds the place and how often the place was taken before, so that the key of something
/// that has gone finds nothing.
#[derive(Debug)]
pub(super) struct Slab<T> {
    places: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
    len: usize,
}

impl<T> Slab<T> {
    pub(super) fn new() -> Self {
        Self { places: vec![], free: vec![], len: 0 }
    }

    pub(super) fn insert(&mut self, value: T) -> u64 {
        self.len += 1;
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push((0, None));
            (self.places.len() - 1) as u32
        });
        let place = &mut self.places[index as usize];
        place.1 = Some(value);
        u64::from(place.0) << 32 | u64::from(index)
    }

    pub(super) fn get(&self, key: u64) -> Option<&T> {
        let (round, value) = self.places.get(key as u32 as usize)?;
        if u64::from(*round) == key >> 32 { value.as_ref() } else { None }
    }

    pub(super) fn get_mut(&mut self, key: u64) -> Option<&mut T> {
        let (round, value) = self.places.get_mut(key as u32 as usize)?;
        if u64::from(*round) == key >> 32 { value.as_mut() } else { None }
    }

    pub(super) fn remove(&mut self, key: u64) -> Option<T> {
        let (round, value) = self.places.get_mut(key as u32 as usize)?;
        if u64::from(*round) != key >> 32 {
            return None;
        }
        let value = value.take()?;
        *round = round.wrapping_add(1);
        self.free.push(key as u32);
        self.len -= 1;
        Some(value)
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// All keys, in no useful order. Walks every place.
    pub(super) fn keys(&self) -> Vec<u64> {
        let taken = self.places.iter().enumerate().filter(|(_, place)| place.1.is_some());
        taken.map(|(index, place)| u64::from(place.0) << 32 | index as u64).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Slab;

    #[test]
    fn a_place_is_used_again_under_another_key() {
        let mut slab = Slab::new();
        let (a, b) = (slab.insert('a'), slab.insert('b'));
        assert_eq!(slab.remove(a), Some('a'));
        let c = slab.insert('c');
        assert_eq!((a as u32, a == c), (c as u32, false));
        assert_eq!((slab.get(a), slab.get(b), slab.get(c)), (None, Some(&'b'), Some(&'c')));
        assert_eq!((slab.remove(a), slab.len(), slab.keys().len()), (None, 2, 2));
    }
}
