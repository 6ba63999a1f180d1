//! The upper bound that memory sets to the speed of kernels: plain loops over the same arrays.
//!
//! The loops share only one thing with the kernels, the compilation for a
//! [tier](crate::exec::isa::Tier). They use neither segments nor chunks nor the thread pool. Each
//! array is divided into one contiguous part per thread, and each thread passes over its parts
//! together, with one integer addition per 32 bits: a cache line of each in turn where the accesses
//! are those of a step (arrays that are updated, and one that is read), otherwise a block of each.
//!
//! The upper bound that arithmetic sets is
//! [`Method::arithmetic`](crate::optim::Method::arithmetic).

use std::hint::black_box;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::error::{Error, Result};
use crate::exec::isa::{self, Kernel};

/// How one array is accessed, in words of 32 bits whatever they stand for.
#[derive(Debug)]
pub enum Access<'a> {
    /// Read only.
    Read(&'a [u32]),
    /// Read and written in place.
    Update(&'a mut [u32]),
    /// Written only.
    Write(&'a mut [u32]),
}

/// Words of a cache line.
const LINE: usize = 16;

/// Words of the longest array that are passed over before the turn of the next array. With 512,
/// arrays in the L2 cache are read 0.85 times as fast on AVX2; with 2048, all are in some caches
/// slower.
const BLOCK: usize = 1024;

impl<'a> Access<'a> {
    fn len(&self) -> usize {
        match self {
            Self::Read(words) => words.len(),
            Self::Update(words) | Self::Write(words) => words.len(),
        }
    }

    /// The part before word `at` and the rest.
    fn split(self, at: usize) -> [Self; 2] {
        match self {
            Self::Read(words) => {
                let (a, b) = words.split_at(at);
                [Self::Read(a), Self::Read(b)]
            }
            Self::Update(words) => {
                let (a, b) = words.split_at_mut(at);
                [Self::Update(a), Self::Update(b)]
            }
            Self::Write(words) => {
                let (a, b) = words.split_at_mut(at);
                [Self::Write(a), Self::Write(b)]
            }
        }
    }
}

/// Passes so often over all of the arrays, each in one contiguous part per thread, and returns the
/// time of one pass.
///
/// # Errors
/// The system does not give so many threads.
///
/// # Panics
/// `threads` or `passes` is 0.
pub fn pass(arrays: Vec<Access<'_>>, threads: usize, passes: u32) -> Result<Duration> {
    assert!(
        threads > 0 && passes > 0,
        "at least one thread and one pass"
    );
    let tier = isa::current();
    let mut shares: Vec<Mutex<Vec<Access<'_>>>> = Vec::new();
    let mut rest = arrays;
    for left in (1..=threads).rev() {
        // A multiple of a cache line, so that no line has two threads.
        let at = |array: &Access<'_>| match left {
            1 => array.len(),
            _ => array.len() / left / LINE * LINE,
        };
        let halves = rest.into_iter().map(|array| {
            let at = at(&array);
            array.split(at)
        });
        let (share, others) = halves.map(|[a, b]| (a, b)).unzip();
        shares.push(Mutex::new(share));
        rest = others;
    }
    let taken = together(threads, |thread| {
        let mut share = shares[thread]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for _ in 0..passes {
            tier.run(Pass(&mut share));
        }
    })?;
    Ok(taken / passes)
}

/// Calls `work` with each index below `threads`, on as many threads at once, and returns the time
/// until the last call ends.
pub(crate) fn together(threads: usize, work: impl Fn(usize) + Sync) -> Result<Duration> {
    static TEAM: Mutex<Option<ThreadPool>> = Mutex::new(None);
    let mut team = TEAM.lock().unwrap_or_else(PoisonError::into_inner);
    let team = match team.as_ref() {
        Some(team) if team.current_num_threads() == threads => team,
        _ => team.insert(
            ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .map_err(|error| Error::Value(format!("threads: {error}")))?,
        ),
    };
    let start = Instant::now();
    team.broadcast(|context| work(context.index()));
    Ok(start.elapsed())
}

/// One pass of one thread.
struct Pass<'a, 'b>(&'a mut [Access<'b>]);

impl Kernel for Pass<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let arrays = self.0;
        if pass_by_lines::<1>(arrays)
            || pass_by_lines::<2>(arrays)
            || pass_by_lines::<3>(arrays)
            || pass_by_lines::<4>(arrays)
        {
            return;
        }
        let longest = arrays.iter().map(Access::len).max().unwrap_or(0);
        let blocks = longest.div_ceil(BLOCK);
        let mut found = 0_u32;
        for index in 0..blocks {
            for array in arrays.iter_mut() {
                // The arrays of fewer words are passed over in as many, smaller blocks.
                let block = array.len().div_ceil(blocks).next_multiple_of(LINE);
                let from = array.len().min(index * block);
                let to = array.len().min(from + block);
                match array {
                    Access::Read(words) => found = found.wrapping_add(sum(&words[from..to])),
                    Access::Update(words) => update(&mut words[from..to]),
                    Access::Write(words) => words[from..to].fill(index as u32),
                }
            }
        }
        black_box(found);
    }
}

/// Cache lines from that which a thread works on to that which it prefetches. Besides, a loop with
/// prefetches is not turned into one with gathers, as LLVM does for AVX-512.
const AHEAD: usize = 24;

/// Passes over `U` arrays that are updated and over one that is read, a cache line of each in turn,
/// if the arrays are these, all of one length, the one that is read last. Returns whether it did.
///
/// Two threads of Ice Lake move 35 GB/s of three such arrays and 46 of four, and 28 and 34 in blocks
/// of [`BLOCK`] (16 Mi words each, AVX2).
#[inline(always)]
fn pass_by_lines<const U: usize>(arrays: &mut [Access<'_>]) -> bool {
    let Some((Access::Read(read), others)) = arrays.split_last_mut() else {
        return false;
    };
    let alike = |array: &Access<'_>| matches!(array, Access::Update(w) if w.len() == read.len());
    if others.len() != U || !others.iter().all(alike) {
        return false;
    }
    let mut others = others.iter_mut();
    let mut updated: [_; U] = std::array::from_fn(|_| match others.next() {
        Some(Access::Update(words)) => words.as_chunks_mut::<LINE>(),
        _ => unreachable!("there are `U` arrays that are updated"),
    });
    let (read, read_rest) = read.as_chunks::<LINE>();
    for (lines, _) in &updated {
        assert_eq!(lines.len(), read.len());
    }
    for index in 0..read.len() {
        isa::prefetch(read.as_ptr().wrapping_add(index + AHEAD));
        for (u, (lines, _)) in updated.iter_mut().enumerate() {
            isa::prefetch(lines.as_ptr().wrapping_add(index + AHEAD));
            // The words that are read are added to those of the first array.
            let added = if u == 0 { read[index] } else { [1; LINE] };
            for i in 0..LINE {
                lines[index][i] = lines[index][i].wrapping_add(added[i]);
            }
        }
    }
    for (_, rest) in &mut updated {
        update(rest);
    }
    black_box(sum(read_rest));
    true
}

/// A simple reduction, which compilers vectorize with several sums. Sixteen sums of its own became
/// gathers on AVX-512, five times as slow in the L1 cache.
#[inline(always)]
fn sum(words: &[u32]) -> u32 {
    let mut sum = 0_u32;
    for &word in words {
        sum = sum.wrapping_add(word);
    }
    sum
}

#[inline(always)]
fn update(words: &mut [u32]) {
    for i in 0..words.len() {
        words[i] = words[i].wrapping_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_of_a_step_is_updated_once_per_pass() {
        let n = if cfg!(miri) { 1500 } else { 100_003 };
        for count in 0..6 {
            let mut updated = vec![vec![1_u32; n]; count];
            let read = vec![1_u32; n];
            let accesses = updated.iter_mut().map(|words| Access::Update(words));
            let arrays = accesses.chain([Access::Read(&read)]).collect();
            pass(arrays, 2, 3).expect("threads");
            assert!(updated.iter().flatten().all(|&word| word == 4), "{count}");
        }
    }

    #[test]
    fn every_word_is_updated_once_per_pass_and_written_by_one_thread() {
        let n = if cfg!(miri) { 1500 } else { 100_003 };
        for threads in 1..=3 {
            let (mut long, mut short) = (vec![1_u32; n], vec![1_u32; n / 3]);
            let (read, mut written) = (vec![1_u32; n], vec![u32::MAX; n]);
            let arrays = vec![
                Access::Update(&mut long),
                Access::Read(&read),
                Access::Update(&mut short),
                Access::Write(&mut written),
            ];
            pass(arrays, threads, 2).expect("threads");
            assert!(long.iter().chain(&short).all(|&word| word == 3));
            assert!(written.iter().all(|&word| word != u32::MAX));
        }
    }
}
