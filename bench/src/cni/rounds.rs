//! The calls in turn, timed.

use std::time::Duration;

use anyhow::Result;

use super::contenders::{Contender, FIRST_MEASURED, Pod, Verb};
use super::{Options, verify};
use crate::machine;

/// Who is first, second and third, so that each follows each other as often, and nobody always meets the same remains.
const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [1, 2, 0], [2, 0, 1], [0, 2, 1], [2, 1, 0], [1, 0, 2]];
/// The first number of pods that stand. Those below are looked into.
const FIRST_STANDING: u16 = 4;
/// A line of progress comes after so many rounds.
const PROGRESS: u16 = 50;

/// What was measured of one contender.
#[derive(Debug, Default)]
pub(crate) struct Timings {
    /// Of each ADD.
    pub(crate) add: Vec<Duration>,
    /// Of each DEL.
    pub(crate) del: Vec<Duration>,
}

/// All rounds. The first ADD of each contender is verified, and so is its first DEL.
///
/// # Errors
/// When a call fails.
pub(crate) fn run(contenders: &[Contender; 3], options: &Options) -> Result<[Timings; 3]> {
    eprintln!("making pods …");
    for contender in contenders {
        for number in 0..options.standing {
            let pod = contender.pod("standing", FIRST_STANDING + number)?;
            call(contender, Verb::Add, &pod)?;
        }
    }
    let total = options.warm_up + options.rounds;
    let mut pods: [Vec<Pod>; 3] = Default::default();
    for (contender, pods) in contenders.iter().zip(&mut pods) {
        *pods = (FIRST_MEASURED..FIRST_MEASURED + total)
            .map(|number| contender.pod("pod", number))
            .collect::<Result<_>>()?;
    }
    let mut timings: [Timings; 3] = Default::default();
    for round in 0..total {
        let order = ORDERS[usize::from(round) % ORDERS.len()];
        for verb in [Verb::Add, Verb::Del] {
            for who in order {
                let (contender, pod) = (&contenders[who], &pods[who][usize::from(round)]);
                let took = call(contender, verb, pod)?;
                if round == 0 {
                    verify::verify(verb, contender, pod)?;
                }
                if verb == Verb::Del {
                    rest(Duration::from_millis(options.pause));
                }
                if round >= options.warm_up {
                    let timings = &mut timings[who];
                    let samples = if verb == Verb::Add { &mut timings.add } else { &mut timings.del };
                    samples.push(took);
                }
            }
        }
        let done = round + 1;
        if done % PROGRESS == 0 || done == total {
            eprintln!("round {done} of {total}");
        }
    }
    Ok(timings)
}

fn call(contender: &Contender, verb: Verb, pod: &Pod) -> Result<Duration> {
    machine::enter(contender.host())?;
    contender.call(verb, pod).time()
}

#[expect(
    clippy::disallowed_methods,
    reason = "quiet between measurements is the purpose; the kernel tells nobody of it"
)]
fn rest(pause: Duration) {
    std::thread::sleep(pause);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_follows_each_other_as_often() {
        let mut count = [[0; 3]; 3];
        for order in ORDERS {
            for pair in order.windows(2) {
                count[pair[0]][pair[1]] += 1;
            }
        }
        assert_eq!(count, [[0, 2, 2], [2, 0, 2], [2, 2, 0]]);
    }
}
