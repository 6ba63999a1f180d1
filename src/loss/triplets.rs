//! Triplets of a batch: an anchor, another row of its label, and a row of another label.

use std::sync::OnceLock;

use crate::error::{Error, Result};
use crate::exec::isa::{self, Kernel};
use crate::exec::pool;
use crate::loss::checks::require_len;
use crate::loss::driver::buffers::piece;
use crate::loss::driver::rowwise;
use crate::numeric::float::Float;
use crate::reduce;

/// Which triplets are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// For each anchor and positive the nearest negative that is farther than the positive, by less
    /// than the margin.
    Semihard,
    /// For each anchor its farthest positive and its nearest negative.
    Hard,
    /// All triplets.
    All,
}

impl std::str::FromStr for Kind {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "semihard" => Ok(Self::Semihard),
            "hard" => Ok(Self::Hard),
            "all" => Ok(Self::All),
            _ => Err(Error::Value(format!(
                "kind must be 'semihard', 'hard' or 'all', got {name:?}"
            ))),
        }
    }
}

/// The number of anchors per kernel: a row is read and converted once for all of them.
const ANCHORS: usize = 4;

/// `f64` lanes per anchor: two AVX-512 registers.
const LANES: usize = 16;

/// The distances of all rows from some anchors.
struct Distances<'a, T> {
    x: &'a [T],
    length: usize,
    anchors: [usize; ANCHORS],
    found: &'a mut [Vec<f64>; ANCHORS],
}

impl<T: Float> Distances<'_, T> {
    /// Adds the squares of `n` differences to the lanes.
    #[inline(always)]
    fn add(&self, row: usize, j: usize, n: usize, lanes: &mut [[f64; LANES]; ANCHORS]) {
        let x: [T; LANES] = piece(self.x, row * self.length + j, n);
        for k in 0..ANCHORS {
            let anchor: [T; LANES] = piece(self.x, self.anchors[k] * self.length + j, n);
            for i in 0..LANES {
                let d = anchor[i].to_f64() - x[i].to_f64();
                lanes[k][i] += d * d;
            }
        }
    }
}

impl<T: Float> Kernel for Distances<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let whole = self.length - self.length % LANES;
        for row in 0..self.found[0].len() {
            let mut lanes = [[0.0; LANES]; ANCHORS];
            let mut j = 0;
            while j < whole {
                self.add(row, j, LANES, &mut lanes);
                j += LANES;
            }
            if whole < self.length {
                self.add(row, whole, self.length - whole, &mut lanes);
            }
            for k in 0..ANCHORS {
                self.found[k][row] = reduce::sum(lanes[k]).sqrt();
            }
        }
    }
}

/// The distance of a row from the anchor, and the row.
type Neighbor = (f64, usize);

/// The rows of a batch, seen from one anchor.
struct View<'a> {
    anchor: usize,
    labels: &'a [i64],
    distances: &'a [f64],
}

impl View<'_> {
    /// The other rows with the label of the anchor, or the rows with other labels.
    fn rows(&self, positive: bool) -> impl Iterator<Item = usize> {
        let label = self.labels[self.anchor];
        (0..self.labels.len())
            .filter(move |&row| row != self.anchor && (self.labels[row] == label) == positive)
    }

    /// The same rows with their distances, without those at a distance of NaN.
    fn far(&self, positive: bool) -> impl Iterator<Item = Neighbor> {
        let rows = self.rows(positive);
        let far = rows.map(|row| (self.distances[row], row));
        far.filter(|(d, _)| !d.is_nan())
    }

    /// The positives and negatives that form triplets with the anchor.
    fn choose(&self, kind: Kind, margin: f64) -> Vec<[usize; 2]> {
        match kind {
            Kind::Semihard => {
                let mut positives: Vec<Neighbor> = self.far(true).collect();
                positives.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
                // `nearest[k]` is the nearest of the negatives that k positives are nearer than.
                // Sorting the few positives costs less than sorting the negatives.
                let mut nearest: Vec<Option<Neighbor>> = vec![None; positives.len() + 1];
                for (d, row) in self.far(false) {
                    let place = &mut nearest[positives.partition_point(|&(near, _)| near < d)];
                    if place.is_none_or(|(least, _)| d < least) {
                        *place = Some((d, row));
                    }
                }
                let mut pairs = Vec::new();
                // The larger k, the farther the negatives.
                let mut beyond = nearest.pop().flatten();
                while let Some((near, positive)) = positives.pop() {
                    if let Some((far, negative)) = beyond
                        && far < near + margin
                    {
                        pairs.push([positive, negative]);
                    }
                    beyond = nearest.pop().flatten().or(beyond);
                }
                pairs.sort_unstable();
                pairs
            }
            Kind::Hard => {
                let farthest = self.far(true).reduce(|a, b| if b.0 > a.0 { b } else { a });
                let nearest = self.far(false).reduce(|a, b| if b.0 < a.0 { b } else { a });
                let pair = farthest.zip(nearest);
                pair.map(|(p, n)| [p.1, n.1]).into_iter().collect()
            }
            Kind::All => {
                let pairs = |positive| self.rows(false).map(move |negative| [positive, negative]);
                self.rows(true).flat_map(pairs).collect()
            }
        }
    }
}

/// The rows of anchors, positives and negatives, in this order.
///
/// # Errors
/// `x` does not have `length` elements per label.
pub fn mine<T: Float>(
    x: &[T],
    length: usize,
    labels: &[i64],
    kind: Kind,
    margin: f64,
) -> Result<[Vec<i64>; 3]> {
    let rows = labels.len();
    require_len("embeddings", x.len(), rowwise::elements([rows, length])?)?;
    let tier = isa::current();
    let found: Vec<OnceLock<Vec<[usize; 2]>>> = (0..rows).map(|_| OnceLock::new()).collect();
    let work = rows.saturating_mul(rows).saturating_mul(length / 8 + 1);
    pool::run(rows.div_ceil(ANCHORS), work, |chunk| {
        let first = chunk * ANCHORS;
        // In the last chunk, the last row takes the place of missing anchors.
        let anchors = std::array::from_fn(|k| (first + k).min(rows - 1));
        let mut distances: [Vec<f64>; ANCHORS] = std::array::from_fn(|_| vec![0.0; rows]);
        if kind != Kind::All {
            tier.run(Distances {
                x,
                length,
                anchors,
                found: &mut distances,
            });
        }
        for (anchor, distances) in (first..rows).zip(&distances) {
            let view = View {
                anchor,
                labels,
                distances,
            };
            let chosen = view.choose(kind, margin);
            found[anchor].set(chosen).expect("each anchor comes once");
        }
    });
    let mut triplets = [const { Vec::new() }; 3];
    for (anchor, chosen) in found.into_iter().enumerate() {
        for [positive, negative] in chosen.into_inner().expect("each anchor came") {
            for (rows, row) in triplets.iter_mut().zip([anchor, positive, negative]) {
                rows.push(row as i64);
            }
        }
    }
    Ok(triplets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::isa::Tier;
    use crate::exec::pool::with_threads;

    /// By the definitions, one triplet after another.
    fn oracle(x: &[f64], length: usize, labels: &[i64], kind: Kind, margin: f64) -> Vec<[i64; 3]> {
        let rows = labels.len();
        let distance = |a: usize, b: usize| {
            let squares = (0..length).map(|j| {
                let d = x[a * length + j] - x[b * length + j];
                d * d
            });
            squares.sum::<f64>().sqrt()
        };
        let mut triplets = Vec::new();
        for a in 0..rows {
            let positives = (0..rows).filter(|&p| p != a && labels[p] == labels[a]);
            let negatives: Vec<usize> = (0..rows).filter(|&n| labels[n] != labels[a]).collect();
            let mut chosen = Vec::new();
            for p in positives {
                for &n in &negatives {
                    chosen.push((p, n, distance(a, p), distance(a, n)));
                }
            }
            match kind {
                Kind::All => {}
                Kind::Hard => {
                    // Stable sorts leave the first of equals first.
                    chosen.sort_by(|a, b| b.2.total_cmp(&a.2).then(a.3.total_cmp(&b.3)));
                    chosen.truncate(1);
                }
                Kind::Semihard => {
                    chosen.retain(|&(_, _, near, far)| near < far && far < near + margin);
                    chosen.sort_by(|a, b| a.0.cmp(&b.0).then(a.3.total_cmp(&b.3)));
                    chosen.dedup_by_key(|triplet| triplet.0);
                }
            }
            triplets.extend(
                chosen
                    .iter()
                    .map(|&(p, n, ..)| [a as i64, p as i64, n as i64]),
            );
        }
        triplets
    }

    #[test]
    fn triplets_are_those_of_the_definitions() {
        for [rows, length, classes] in [
            [0, 3, 1],
            [1, 3, 1],
            [5, 2, 1],
            [5, 0, 2],
            [7, 17, 3],
            [40, 3, 4],
            [67, 33, 5],
            [130, 16, 30],
        ] {
            if cfg!(miri) && rows > 7 {
                continue;
            }
            // Small whole numbers: sums are exact, and there are ties.
            let x: Vec<f64> = (0..rows * length)
                .map(|i| f64::from((i * i * 7 % 31) as u8 % 5))
                .collect();
            let labels: Vec<i64> = (0..rows).map(|i| (i * i % 97 % classes) as i64).collect();
            for kind in [Kind::Semihard, Kind::Hard, Kind::All] {
                let expected = oracle(&x, length, &labels, kind, 0.5);
                for tier in Tier::supported() {
                    for count in [1, 3] {
                        let call = || mine(&x, length, &labels, kind, 0.5);
                        let call = || with_threads(count, call);
                        let found = isa::with_tier(tier, call).expect("supported");
                        let [a, p, n] = found.expect("good arguments");
                        let found: Vec<[i64; 3]> =
                            (0..a.len()).map(|i| [a[i], p[i], n[i]]).collect();
                        assert_eq!(found, expected, "{kind:?} {rows} x {length}");
                    }
                }
            }
        }
    }

    #[test]
    fn rows_with_nan_are_not_chosen() {
        let x = [0.0, f64::NAN, 1.0, f64::NAN, 3.0];
        let labels = [0, 0, 0, 1, 1];
        let found = mine(&x, 1, &labels, Kind::Hard, 0.5);
        let [a, p, n] = found.expect("good arguments");
        assert_eq!((a, p, n), (vec![0, 2], vec![2, 0], vec![4, 4]));
    }
}
