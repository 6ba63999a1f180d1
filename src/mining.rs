//! Triplets of a batch: an anchor, another row of its label, and a row of another label.

use std::sync::OnceLock;

use crate::error::{Error, Result};
use crate::float::Float;
use crate::isa::{self, Kernel, Tier};
use crate::pointwise;
use crate::threads;

/// Which triplets are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// For each anchor and positive the nearest negative that is farther than the positive, by less
    /// than the margin.
    Semihard,
    /// For each anchor its farthest positive and its nearest negative.
    Hard,
    /// Every one.
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

/// Anchors at a time: a row that is compared with all of them is read and widened once.
const ANCHORS: usize = 4;

/// Two AVX-512 registers of `f64` for each anchor.
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
        let start = row * self.length + j;
        let x = &self.x[start..start + n];
        for k in 0..ANCHORS {
            let start = self.anchors[k] * self.length + j;
            let anchor = &self.x[start..start + n];
            for i in 0..n {
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
            self.add(row, whole, self.length - whole, &mut lanes);
            for k in 0..ANCHORS {
                self.found[k][row] = pointwise::sum(lanes[k]).sqrt();
            }
        }
    }
}

/// The least distance above a bound; infinity where there is none.
struct NearestBeyond<'a> {
    distances: &'a [f64],
    bound: f64,
}

impl Kernel for NearestBeyond<'_> {
    type Output = f64;

    #[inline(always)]
    fn run(self) -> f64 {
        let mut lanes = [f64::INFINITY; 2 * LANES];
        let (pieces, rest) = self.distances.as_chunks::<{ 2 * LANES }>();
        for piece in pieces {
            for i in 0..2 * LANES {
                let better = (piece[i] > self.bound) & (piece[i] < lanes[i]);
                lanes[i] = if better { piece[i] } else { lanes[i] };
            }
        }
        let mut least = f64::INFINITY;
        for &d in rest {
            least = if (d > self.bound) & (d < least) {
                d
            } else {
                least
            };
        }
        for d in lanes {
            least = if d < least { d } else { least };
        }
        least
    }
}

/// The rows of a batch, seen from one anchor.
struct View<'a> {
    anchor: usize,
    labels: &'a [i64],
    distances: &'a [f64],
}

impl View<'_> {
    fn positives(&self) -> impl Iterator<Item = usize> {
        let label = self.labels[self.anchor];
        let rows = 0..self.labels.len();
        rows.filter(move |&row| row != self.anchor && self.labels[row] == label)
    }

    /// The distances of negatives; infinity for all other rows.
    fn negatives(&self) -> Vec<f64> {
        let label = self.labels[self.anchor];
        let pairs = self.labels.iter().zip(self.distances);
        let negative = |(&other, &d): (&i64, &f64)| if other == label { f64::INFINITY } else { d };
        pairs.map(negative).collect()
    }

    /// The nearest negative beyond a bound, and its distance.
    fn nearest_beyond(negatives: &[f64], bound: f64, tier: Tier) -> Option<(usize, f64)> {
        let least = tier.run(NearestBeyond {
            distances: negatives,
            bound,
        });
        // Infinity stands for no row.
        let row = negatives
            .iter()
            .position(|&d| d == least && d < f64::INFINITY)?;
        Some((row, least))
    }

    /// Positives and negatives that make triplets with the anchor.
    fn choose(&self, kind: Kind, margin: f64, tier: Tier) -> Vec<[usize; 2]> {
        match kind {
            Kind::Semihard => {
                let negatives = self.negatives();
                let pair = |positive: usize| {
                    let near = self.distances[positive];
                    let (row, far) = Self::nearest_beyond(&negatives, near, tier)?;
                    (far < near + margin).then_some([positive, row])
                };
                self.positives().filter_map(pair).collect()
            }
            Kind::Hard => {
                let mut farthest: Option<usize> = None;
                for row in self.positives() {
                    let d = self.distances[row];
                    if !d.is_nan() && farthest.is_none_or(|best| d > self.distances[best]) {
                        farthest = Some(row);
                    }
                }
                // Every distance is above a negative number.
                let nearest = Self::nearest_beyond(&self.negatives(), -1.0, tier);
                let pair = farthest.zip(nearest);
                pair.map(|(positive, (row, _))| [positive, row])
                    .into_iter()
                    .collect()
            }
            Kind::All => {
                let label = self.labels[self.anchor];
                let rows = || (0..self.labels.len()).filter(|&row| self.labels[row] != label);
                self.positives()
                    .flat_map(|positive| rows().map(move |negative| [positive, negative]))
                    .collect()
            }
        }
    }
}

/// The rows of anchors, positives and negatives, in this order.
///
/// # Panics
/// `x` has not `length` elements per label.
pub fn mine<T: Float>(
    x: &[T],
    length: usize,
    labels: &[i64],
    kind: Kind,
    margin: f64,
) -> [Vec<i64>; 3] {
    let rows = labels.len();
    assert_eq!(x.len(), rows * length, "one row per label");
    let tier = isa::current();
    let found: Vec<OnceLock<Vec<[usize; 2]>>> = (0..rows).map(|_| OnceLock::new()).collect();
    let work = rows * rows * (length + 8) / 8;
    threads::run(rows.div_ceil(ANCHORS), work, |chunk| {
        let first = chunk * ANCHORS;
        // Anchors beyond the last row are the last row again.
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
            let chosen = view.choose(kind, margin, tier);
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
    triplets
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::threads::with_threads;

    /// By the definitions, one triplet after another.
    fn oracle(x: &[f64], length: usize, labels: &[i64], kind: Kind, margin: f64) -> Vec<[i64; 3]> {
        let rows = labels.len();
        let distance = |a: usize, b: usize| {
            let squares = (0..length).map(|j| (x[a * length + j] - x[b * length + j]).powi(2));
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
            [40, 3, 4],
            [67, 33, 5],
            [130, 16, 30],
        ] {
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
                        let [a, p, n] = isa::with_tier(tier, call).expect("supported");
                        let found: Vec<[i64; 3]> =
                            (0..a.len()).map(|i| [a[i], p[i], n[i]]).collect();
                        assert_eq!(found, expected, "{kind:?} {rows} x {length}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_not_a_number_is_not_chosen() {
        let x = [0.0, f64::NAN, 1.0, f64::NAN, 3.0];
        let labels = [0, 0, 0, 1, 1];
        let [a, p, n] = mine(&x, 1, &labels, Kind::Hard, 0.5);
        assert_eq!((a, p, n), (vec![0, 2], vec![2, 0], vec![4, 4]));
    }
}
