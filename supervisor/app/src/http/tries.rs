//! Wrong tries by client, in bounded memory.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// So many wrong tries are free, …
pub(super) const TRIES: u32 = 10;
/// … and one more comes back after so long.
pub(super) const TRY_EVERY: Duration = Duration::from_secs(6);
/// So many clients are told apart. Those that come when there are as many share one count: nobody who
/// has tried too often is forgotten because others come.
const CLIENTS_MAX: usize = 1024;

/// The wrong tries of everybody.
#[derive(Debug, Default)]
pub(super) struct Tries {
    of: HashMap<IpAddr, Bucket>,
    /// Of all for whom there is no room.
    others: Bucket,
}

/// A bucket that wrong tries fill and time empties.
#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    count: u32,
    last: Option<Instant>,
}

impl Tries {
    /// Counts a wrong try.
    ///
    /// # Errors
    /// How long until the client's next try counts as one, where it has tried too often.
    pub(super) fn count(&mut self, client: IpAddr, now: Instant) -> Result<(), Duration> {
        let client = network(client);
        if self.of.len() >= CLIENTS_MAX && !self.of.contains_key(&client) {
            self.of.retain(|_, bucket| bucket.left(now) > 0);
        }
        let bucket = match self.of.len() < CLIENTS_MAX || self.of.contains_key(&client) {
            true => self.of.entry(client).or_default(),
            false => &mut self.others,
        };
        bucket.fill(now)
    }
}

/// Whoever has one IPv6 address has 2^64 of them.
fn network(client: IpAddr) -> IpAddr {
    match client {
        IpAddr::V4(_) => client,
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64)).into(),
    }
}

impl Bucket {
    fn since(self, now: Instant) -> Duration {
        let last = self.last.unwrap_or(now);
        now.saturating_duration_since(last)
    }

    /// How many are left by now.
    fn left(self, now: Instant) -> u32 {
        let forgiven = self.since(now).as_secs() / TRY_EVERY.as_secs();
        self.count
            .saturating_sub(u32::try_from(forgiven).unwrap_or(u32::MAX))
    }

    fn fill(&mut self, now: Instant) -> Result<(), Duration> {
        let left = self.left(now);
        if left >= TRIES {
            let next = TRY_EVERY * (self.count + 1 - TRIES);
            let wait = next.saturating_sub(self.since(now));
            return Err(wait.max(Duration::from_secs(1)));
        }
        *self = Self {
            count: left + 1,
            last: Some(now),
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

    /// Tries until it is told to wait, and says how often.
    fn until_refused(tries: &mut Tries, client: IpAddr, now: Instant) -> u32 {
        let mut counted = 0;
        while tries.count(client, now).is_ok() {
            counted += 1;
            assert!(counted <= TRIES, "never refused");
        }
        counted
    }

    #[test]
    fn each_client_has_ten_tries_and_one_more_every_six_seconds() {
        let (mut tries, now) = (Tries::default(), Instant::now());
        assert_eq!(until_refused(&mut tries, THERE, now), TRIES);
        let wait = tries.count(THERE, now).expect_err("too many");
        assert!(wait <= TRY_EVERY && wait >= Duration::from_secs(1));
        let other = IpAddr::V4(Ipv4Addr::LOCALHOST);
        assert_eq!(until_refused(&mut tries, other, now), TRIES);
        assert_eq!(until_refused(&mut tries, THERE, now + TRY_EVERY), 1);
        assert_eq!(
            until_refused(&mut tries, THERE, now + TRY_EVERY * 1000),
            TRIES
        );
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one_client() {
        let (mut tries, now) = (Tries::default(), Instant::now());
        let at = |text: &str| text.parse::<IpAddr>().expect(text);
        for n in 0..u16::try_from(TRIES).expect("small") {
            let from = IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, n]);
            tries.count(from, now).expect("free");
        }
        tries
            .count(at("2001:db8::ffff:1"), now)
            .expect_err("the same network");
        tries
            .count(at("2001:db8:0:1::1"), now)
            .expect("another one");
    }

    #[test]
    fn however_many_clients_come_memory_is_bounded_and_nobody_is_forgotten() {
        let (mut tries, now) = (Tries::default(), Instant::now());
        until_refused(&mut tries, THERE, now);
        for n in 0..3000u32 {
            let _ = tries.count(IpAddr::V4(Ipv4Addr::from(n)), now);
        }
        assert_eq!(tries.of.len(), CLIENTS_MAX);
        tries.count(THERE, now).expect_err("still too many");
        // Those for whom there was no room share a count, and one more is no exception.
        let late = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1));
        tries.count(late, now).expect_err("with the others");
        // Whoever was quiet for long enough makes room.
        let later = now + TRY_EVERY;
        assert_eq!(until_refused(&mut tries, late, later), TRIES);
        assert!(tries.of.len() < CLIENTS_MAX);
        assert_eq!(until_refused(&mut tries, THERE, later), 1);
    }
}
