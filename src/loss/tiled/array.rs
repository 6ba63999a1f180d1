//! Arrays that are loaded in the order of the kernels: element `row * length + j` of row after row.

use crate::error::Result;
use crate::exec::isa::Tier;
use crate::loss::checks::require_len;
use crate::numeric::float::Float;
use crate::storage::view::StorageView;

/// Where the elements of the rows are in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layout {
    /// In the order of the rows.
    Rows,
    /// In the order of shape (N, C, P), where the rows are the N P positions, and have C elements.
    Columns {
        /// C.
        classes: usize,
        /// P.
        positions: usize,
    },
    /// One number for every so many consecutive elements.
    Groups(usize),
    /// Repeated along axes: the length of each axis, and the distance in memory from one of its
    /// indices to the next, which is 0 or, for the last axis, 1.
    Broadcast(Vec<[usize; 2]>),
}

/// An array of a call, however it is stored.
#[derive(Debug)]
pub struct TiledArray<'a, T> {
    pub(super) view: StorageView<'a, T>,
    pub(super) layout: Layout,
    pub(super) len: usize,
}

impl<'a, T: Float> TiledArray<'a, T> {
    /// An array of `len` elements.
    ///
    /// # Errors
    /// The view has another length than `layout` needs for them.
    pub fn new(view: StorageView<'a, T>, layout: Layout, len: usize) -> Result<Self> {
        let expected = match &layout {
            // No elements are loaded, whatever the view has.
            _ if len == 0 => view.len(),
            Layout::Rows => len,
            Layout::Columns { classes, positions } => {
                let sample = classes.saturating_mul(*positions);
                require_len("a sample", len.checked_rem(sample).unwrap_or(len), 0)?;
                len
            }
            Layout::Groups(length) => {
                require_len("a group", len.checked_rem(*length).unwrap_or(len), 0)?;
                len / length
            }
            Layout::Broadcast(axes) => {
                let lengths = axes.iter().map(|[length, _]| *length);
                let product = lengths.fold(1, usize::saturating_mul);
                require_len("the broadcast array", product, len)?;
                let stride = axes.last().map_or(0, |[_, stride]| *stride);
                require_len("a run", stride.max(1), 1)?;
                // The index of the last element, plus 1.
                let last = axes
                    .iter()
                    .map(|[n, stride]| (n - 1).saturating_mul(*stride));
                last.fold(1, usize::saturating_add)
            }
        };
        require_len("an array", view.len(), expected)?;
        Ok(Self { view, layout, len })
    }

    /// Loads the elements from `start` on. For [`Layout::Columns`] they are whole rows. `run` is
    /// memory for a part of them.
    ///
    /// # Safety
    /// `start + out.len()` is at most the length of [`new`](Self::new), and nobody writes these
    /// elements meanwhile.
    pub(super) unsafe fn load(&self, start: usize, out: &mut [T], run: &mut [T], tier: Tier) {
        if out.is_empty() {
            return;
        }
        // SAFETY: by the contract of this function the elements are inside, and nobody writes them;
        // `new` checked that the layout maps them into the view.
        unsafe {
            match &self.layout {
                Layout::Rows => self.view.load(start, out, tier),
                &Layout::Columns { classes, positions } => {
                    let first = start / classes;
                    let rows = first..first + out.len() / classes;
                    runs(rows, [classes, positions], run.len(), |row, count, at| {
                        let rows = &mut out[(row - first) * classes..];
                        for j in 0..classes {
                            let from = at + j * positions;
                            let piece = self.view.read_into(from, &mut run[..count], tier);
                            let to = rows[j..].iter_mut().step_by(classes);
                            for (to, &x) in to.zip(piece) {
                                *to = x;
                            }
                        }
                    });
                }
                Layout::Groups(length) => {
                    self.load_broadcast(&[[self.view.len(), 1], [*length, 0]], start, out, tier);
                }
                Layout::Broadcast(axes) => self.load_broadcast(axes, start, out, tier),
            }
        }
    }

    /// # Safety
    /// As for `load`.
    unsafe fn load_broadcast(&self, axes: &[[usize; 2]], start: usize, out: &mut [T], tier: Tier) {
        let ([length, stride], outer) = match axes.split_last() {
            Some((last, outer)) => (*last, outer),
            None => ([1, 0], axes),
        };
        let mut done = 0;
        while done < out.len() {
            let (mut run, place) = ((start + done) / length, (start + done) % length);
            let mut at = place * stride;
            for [length, stride] in outer.iter().rev() {
                at += run % length * stride;
                run /= length;
            }
            let count = (length - place).min(out.len() - done);
            let piece = &mut out[done..done + count];
            // SAFETY: by the contract of `load` the elements are inside and nobody writes them;
            // `new` checked that these axes lead to no other elements than those of the
            // view.
            unsafe {
                if stride == 0 {
                    self.view.load(at, &mut piece[..1], tier);
                    let repeated = piece[0];
                    piece.fill(repeated);
                } else {
                    self.view.load(at, piece, tier);
                }
            }
            done += count;
        }
    }
}

/// Stores rows from element `start` on, which are whole rows for [`Layout::Columns`].
///
/// # Safety
/// The view has an element for each of those of an array of `layout`, of which `start + new.len()`
/// are at most its length; it may be written, and nobody else has these elements meanwhile.
pub(super) unsafe fn store<T: Float>(
    view: &StorageView<'_, T>,
    layout: &Layout,
    start: usize,
    new: &[T],
    run: &mut [T],
    tier: Tier,
) {
    if new.is_empty() {
        return;
    }
    // SAFETY: by the contract of this function the elements are inside, may be written, and nobody
    // else has them. Both layouts give every element a place of its own.
    unsafe {
        match *layout {
            Layout::Columns { classes, positions } => {
                let first = start / classes;
                let rows = first..first + new.len() / classes;
                runs(rows, [classes, positions], run.len(), |row, count, at| {
                    let piece = &mut run[..count];
                    let rows = &new[(row - first) * classes..];
                    for j in 0..classes {
                        for (x, &from) in piece.iter_mut().zip(rows[j..].iter().step_by(classes)) {
                            *x = from;
                        }
                        view.store(at + j * positions, piece, tier);
                    }
                });
            }
            Layout::Rows => view.store(start, new, tier),
            Layout::Groups(_) | Layout::Broadcast(_) => {
                unreachable!("the gradient of a repeated input is summed")
            }
        }
    }
}

/// Calls `f` with the first row, the number of rows and the place of the first element of runs of
/// at most `most` rows that are neighbours in memory.
fn runs(
    rows: std::ops::Range<usize>,
    [classes, positions]: [usize; 2],
    most: usize,
    mut f: impl FnMut(usize, usize, usize),
) {
    let mut row = rows.start;
    while row < rows.end {
        let (sample, position) = (row / positions, row % positions);
        let count = (positions - position).min(rows.end - row).min(most);
        f(row, count, sample * classes * positions + position);
        row += count;
    }
}
