//! Comparison of SGD and Adam with the formulas of their papers, one element at a time in `f64`.
//! The formulas of all optimizers are in `tests/python/papers.py`, and
//! `tests/python/optim/test_papers.py` fails if an optimizer is missing there.

mod cases;

use fastoptim::optim::Method;
use fastoptim::step::Options;

/// The number of elements, smaller under Miri, which is slow.
const N: usize = if cfg!(miri) { 40 } else { 1000 };

/// Returns one element after three steps on gradients `g`, by the formulas of the papers, or `None`
/// for optimizers without a formula here.
fn paper(method: &Method, mut p: f64, g: [f64; 3]) -> Option<f64> {
    match method {
        Method::SGD(o) => {
            let mut v = None;
            for g in g {
                let g = g + o.weight_decay * p;
                if o.momentum == 0.0 {
                    p -= o.lr * g;
                } else if o.momentum_form == "inside" {
                    let new = o.momentum * v.unwrap_or(0.0) - o.lr * g;
                    p += if o.nesterov {
                        o.momentum * new - o.lr * g
                    } else {
                        new
                    };
                    v = Some(new);
                } else {
                    let new = v.map_or(g, |v| o.momentum * v + (1.0 - o.dampening) * g);
                    p -= o.lr
                        * if o.nesterov {
                            g + o.momentum * new
                        } else {
                            new
                        };
                    v = Some(new);
                }
            }
        }
        Method::Adam(o) if !o.cautious => {
            let [b1, b2] = o.betas;
            let (mut m, mut v, mut largest) = (0.0, 0.0, 0.0_f64);
            for (t, g) in (1..).zip(g) {
                let g = if o.decoupled_weight_decay {
                    g
                } else {
                    g + o.weight_decay * p
                };
                if o.decoupled_weight_decay {
                    p -= o.lr * o.weight_decay * p;
                }
                m = b1 * m + (1.0 - b1) * g;
                v = b2 * v + (1.0 - b2) * g * g;
                largest = largest.max(v);
                let v = if o.amsgrad { largest } else { v };
                let (m_hat, v_hat) = (m / (1.0 - b1.powi(t)), v / (1.0 - b2.powi(t)));
                p -= o.lr * m_hat / (v_hat.sqrt() + o.eps);
            }
        }
        _ => return None,
    }
    Some(p)
}

/// The configurations that `paper` has: at least one of each of the two.
fn written_out() -> Vec<Method> {
    let mut methods = cases::methods();
    methods.retain(|method| paper(method, 0.0, [0.0; 3]).is_some());
    assert!(methods.iter().any(|it| matches!(it, Method::SGD(_))));
    assert!(methods.iter().any(|it| matches!(it, Method::Adam(_))));
    methods
}

#[test]
fn sgd_and_adam_follow_their_papers() {
    let start = cases::numbers(N, 1);
    let gradients = [2, 3, 4].map(|seed| cases::numbers(N, seed));
    for method in written_out() {
        let double = cases::run::<f64>(&method, &[N], &Options::DEFAULT);
        let single = cases::run::<f32>(&method, &[N], &Options::DEFAULT);
        for i in 0..N {
            let g = [0, 1, 2].map(|t| gradients[t][i]);
            let expected = paper(&method, start[i], g).expect("written out");
            let error = (double[0][i] - expected).abs();
            assert!(error < 1e-13, "{method:?}: {error}");
            let error = (f64::from(single[0][i]) - expected).abs();
            assert!(error < 2e-6, "{method:?}: {error}");
        }
    }
}

#[test]
fn the_prologue_is_applied_in_order() {
    // Unscaling, clipping by value, clipping by norm, then weight decay by the rule.
    let options = Options {
        loss_scale: 0.5,
        clip_value: Some(0.5),
        max_norm: Some(1.0),
        ..Options::DEFAULT
    };
    let start = cases::numbers(N, 1);
    let gradients = [2, 3, 4].map(|seed| {
        let clamped = cases::numbers(N, seed)
            .into_iter()
            .map(|g| (2.0 * g).clamp(-0.5, 0.5));
        let clamped: Vec<f64> = clamped.collect();
        let norm = clamped.iter().map(|g| g * g).sum::<f64>().sqrt();
        assert!(norm > 1.0);
        clamped
            .into_iter()
            .map(|g| g / (norm + 1e-6))
            .collect::<Vec<f64>>()
    });
    for method in written_out() {
        let got = cases::run::<f64>(&method, &[N], &options);
        for i in 0..N {
            let g = [0, 1, 2].map(|t| gradients[t][i]);
            let expected = paper(&method, start[i], g).expect("written out");
            assert!((got[0][i] - expected).abs() < 1e-13, "{method:?}");
        }
    }
}
