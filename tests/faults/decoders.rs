//! Every decoder of bytes that come from outside is fed with honest input that was tampered with,
//! and with noise: none may panic, take more memory than the input justifies, or believe what
//! breaks a promise. [`sessionkeep::fuzzing`] lists them and says what is checked.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use sessionkeep::fuzzing::{self, Decoder};

use super::allocations::peak_of;
use super::campaign;
use super::mutate::Mutator;

/// No single input may keep a decoder busy for so long.
const PATIENCE: Duration = Duration::from_secs(20);

/// What decoding all that input came to.
#[derive(Debug, Default)]
struct Sum {
    rounds: u64,
    taken: u64,
    slowest: Duration,
    most: usize,
}

impl Sum {
    /// Decodes one input. An error says what is wrong.
    fn decode(&mut self, decoder: &Decoder, input: &[u8]) -> Result<bool, String> {
        let begun = Instant::now();
        let mut outcome = Ok(false);
        let peak = peak_of(|| {
            outcome = catch_unwind(AssertUnwindSafe(|| (decoder.decode)(input)));
        });
        let took = begun.elapsed();
        let taken = outcome.map_err(|_| "it panics".to_owned())?;
        let limit = (decoder.memory)(input);
        if peak > limit {
            return Err(format!(
                "it takes {peak} bytes of memory, more than {limit}"
            ));
        }
        if took > PATIENCE {
            return Err(format!("it takes {took:?}"));
        }
        self.rounds += 1;
        self.taken += u64::from(taken);
        self.slowest = self.slowest.max(took);
        self.most = self.most.max(peak);
        Ok(taken)
    }
}

#[track_caller]
fn feed(name: &str) {
    let decoder = fuzzing::decoder(name);
    let seeds = (decoder.seeds)();
    let begun = Instant::now();
    let mut sum = Sum::default();
    // What the first call keeps for the others is not of its input.
    for seed in &seeds {
        (decoder.decode)(seed);
    }
    for seed in &seeds {
        let taken = sum.decode(decoder, seed).unwrap_or_else(|why| {
            panic!("{name}: {why}, of honest input: {}", hex::encode(seed));
        });
        assert!(taken, "{name} refuses honest input: {}", hex::encode(seed));
    }
    let mut mutator = Mutator::new(campaign::chance(name), seeds);
    let mut refused = 0;
    for round in 0..campaign::rounds(20_000, 10_000_000) {
        let input = mutator.next();
        match sum.decode(decoder, input) {
            Ok(taken) => refused += u64::from(!taken),
            Err(why) => panic!(
                "{name}: {why} (FAULTS_SEED={}, round {round}): {}",
                campaign::seed(),
                hex::encode(input)
            ),
        }
    }
    println!(
        "decoder × executions × taken × refused × most memory × slowest × in all: \
         {name}\t{}\t{}\t{refused}\t{} KiB\t{:?}\t{:?}",
        sum.rounds,
        sum.taken,
        sum.most >> 10,
        sum.slowest,
        begun.elapsed()
    );
    assert!(refused > 0, "{name} takes everything");
}

macro_rules! decoders {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                feed(stringify!($name));
            }
        )*

        #[test]
        fn all_are_here() {
            let mut here = vec![$(stringify!($name)),*];
            let mut all: Vec<_> = fuzzing::ALL.concat().iter().map(|one| one.name).collect();
            here.sort_unstable();
            all.sort_unstable();
            assert_eq!(here, all);
        }
    };
}

decoders! {
    body listing packed_listing frame fold chain
    mongo_commit mongo_lease mongo_pack mongo_chunks sqlite_header sqlite_queue names
    marker journal wal json path blocks
    settings_file environment span store_url
    control health proc_stat init_flag
}
