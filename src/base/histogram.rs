//! How often something took how long. Fixed steps, so that the histograms of several reactors add
//! up; knows nothing of what is measured. Observing is a few comparisons and three additions.

use std::time::Duration;

/// The upper ends of the steps, in microseconds; what took longer falls into one more step.
pub const BOUNDS_MICROS: [u64; 14] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000,
];

const STEPS: usize = BOUNDS_MICROS.len() + 1;

/// Observations by the step they fell into.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    steps: [u64; STEPS],
    sum_micros: u64,
}

impl Histogram {
    /// How many numbers `write` appends.
    pub const VALUES: usize = STEPS + 1;

    /// `count` things that took equally long.
    pub fn observe(&mut self, took: Duration, count: u64) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let step = BOUNDS_MICROS.iter().position(|bound| micros <= *bound);
        self.steps[step.unwrap_or(STEPS - 1)] += count;
        let all = micros.saturating_mul(count);
        self.sum_micros = self.sum_micros.saturating_add(all);
    }

    /// For each bound, in their order, how many observations lie at or below it.
    pub fn cumulated(&self) -> impl Iterator<Item = (u64, u64)> {
        let mut below = 0;
        BOUNDS_MICROS
            .iter()
            .zip(self.steps)
            .map(move |(bound, step)| {
                below += step;
                (*bound, below)
            })
    }

    pub fn count(&self) -> u64 {
        self.steps.iter().sum()
    }

    pub fn sum_micros(&self) -> u64 {
        self.sum_micros
    }

    pub fn add(&mut self, other: &Histogram) {
        for (step, more) in self.steps.iter_mut().zip(other.steps) {
            *step += more;
        }
        self.sum_micros = self.sum_micros.saturating_add(other.sum_micros);
    }

    /// Appends all numbers.
    pub fn write(&self, to: &mut Vec<u64>) {
        to.extend(self.steps);
        to.push(self.sum_micros);
    }

    /// Reads what `write` appended; missing numbers are zero.
    pub fn read(from: &mut impl Iterator<Item = u64>) -> Histogram {
        let mut histogram = Histogram::default();
        for step in &mut histogram.steps {
            *step = from.next().unwrap_or(0);
        }
        histogram.sum_micros = from.next().unwrap_or(0);
        histogram
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn observations_fall_into_the_first_step_that_holds_them() {
        let mut histogram = Histogram::default();
        histogram.observe(Duration::from_micros(50), 2);
        histogram.observe(Duration::from_micros(51), 1);
        histogram.observe(Duration::from_secs(9), 1);
        let cumulated: Vec<(u64, u64)> = histogram.cumulated().collect();
        assert_eq!(cumulated[..3], [(50, 2), (100, 3), (250, 3)]);
        assert_eq!(cumulated.last(), Some(&(1_000_000, 3)));
        assert_eq!((histogram.count(), histogram.sum_micros()), (4, 9_000_151));
    }

    #[test]
    fn a_histogram_survives_the_trip_and_adds_up() {
        let mut one = Histogram::default();
        one.observe(Duration::from_millis(3), 7);
        let mut values = Vec::new();
        one.write(&mut values);
        assert_eq!(values.len(), Histogram::VALUES);
        let two = Histogram::read(&mut values.into_iter());
        assert_eq!(one, two);
        one.add(&two);
        assert_eq!((one.count(), one.sum_micros()), (14, 42_000));
        // What the counts say is not believed to be small.
        one.observe(Duration::MAX, u64::MAX - 14);
        assert_eq!(one.sum_micros(), u64::MAX);
    }
}
