//! Few configurations in which each two choices are together once.
//!
//! Faults of a configuration mostly come from one option or from two that meet. So instead of all combinations it does to
//! build a covering set: for any two options, each value of the one with each value of the other, as far as both can be.

use crate::evaluate::Settings;
use crate::options::{Kind, OptionId, Options, Value};

/// Wishes about one option or choice, of which one is taken.
struct Factor(Vec<(OptionId, Value)>);

/// Rows that are drawn for each one that is taken.
const DRAWN: usize = 60;

/// A covering set. Of a choice with more members than `members_max` the first ones and the last one are taken, of a number its
/// limits. The same each time.
pub fn pairs(options: &Options, members_max: usize) -> Vec<Settings> {
    let factors = factors(options, members_max);
    let mut open = open_pairs(options, &factors);
    let mut random = Random(1);
    let mut rows = Vec::new();
    while let Some(&((a, i), (b, j))) = open.first() {
        // The pair by itself can be had; with whatever else is drawn, perhaps, and then much else with it.
        let mut best = vec![None; factors.len()];
        (best[a], best[b]) = (Some(i), Some(j));
        let (alone, mut closed) = (best.clone(), closed(options, &factors, &best, &open));
        for _ in 0..DRAWN {
            let fill = |(level, factor): (&Option<usize>, &Factor)| level.or(Some(random.below(factor.0.len())));
            let row: Vec<_> = alone.iter().zip(&factors).map(fill).collect();
            let those = self::closed(options, &factors, &row, &open);
            if those.len() > closed.len() && those.contains(&0) {
                (best, closed) = (row, those);
            }
        }
        let mut index = 0..;
        open.retain(|_| index.next().is_some_and(|index| closed.binary_search(&index).is_err()));
        rows.push(settings(options, &factors, &best));
    }
    rows
}

/// Which of the open pairs a row has, by what its wishes come to.
fn closed(options: &Options, factors: &[Factor], row: &[Option<usize>], open: &[(Level, Level)]) -> Vec<usize> {
    let configuration = options.evaluate(&settings(options, factors, row));
    let has = |(factor, level): Level| {
        let (id, value) = &factors[factor].0[level];
        row[factor] == Some(level) && configuration.value(*id) == value
    };
    open.iter().enumerate().filter(|&(_, &(one, other))| has(one) && has(other)).map(|(index, _)| index).collect()
}

/// Numbers without a pattern, the same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }
}

fn factors(options: &Options, members_max: usize) -> Vec<Factor> {
    let single = options.ids().filter(|&id| options.get(id).prompt.is_some() && options.get(id).choice.is_none());
    let single = single.filter_map(|id| {
        let values = match options.get(id).kind {
            Kind::Bool => vec![Value::Bool(false), Value::Bool(true)],
            Kind::Int => limits(options, id).map(Value::Int).to_vec(),
            Kind::Hex => limits(options, id).map(Value::Hex).to_vec(),
            Kind::Text => return None,
        };
        Some(Factor(values.into_iter().map(|value| (id, value)).collect()))
    });
    let choices = options.choices.iter().map(|choice| {
        let mut members = choice.members.clone();
        while members.len() > members_max.max(2) {
            members.remove(members.len() - 2);
        }
        Factor(members.into_iter().map(|member| (member, Value::Bool(true))).collect())
    });
    choices.chain(single).collect()
}

fn limits(options: &Options, id: OptionId) -> [u64; 2] {
    options.get(id).ranges.first().map_or([0, 1], |&(low, high, _)| [low, high])
}

/// A value of a factor.
type Level = (usize, usize);

/// The pairs that can be together when all else is left alone.
fn open_pairs(options: &Options, factors: &[Factor]) -> Vec<(Level, Level)> {
    let levels = |factor: usize| (0..factors[factor].0.len()).map(move |level| (factor, level));
    let factor_pairs = (0..factors.len()).flat_map(|a| (a + 1..factors.len()).map(move |b| (a, b)));
    let all = factor_pairs.flat_map(|(a, b)| levels(a).flat_map(move |one| levels(b).map(move |other| (one, other))));
    all.filter(|&((a, i), (b, j))| {
        let mut row = vec![None; factors.len()];
        (row[a], row[b]) = (Some(i), Some(j));
        let configuration = options.evaluate(&settings(options, factors, &row));
        [(a, i), (b, j)].iter().all(|&(factor, level)| {
            let (id, value) = &factors[factor].0[level];
            configuration.value(*id) == value
        })
    })
    .collect()
}

fn settings(options: &Options, factors: &[Factor], row: &[Option<usize>]) -> Settings {
    let mut settings = Settings::default();
    for (factor, level) in factors.iter().zip(row) {
        if let Some(level) = level {
            let (id, value) = factor.0[*level].clone();
            settings.wish(options, id, value);
        }
    }
    settings
}
