//! A congestion controller with a floor.
//!
//! Cubic halves its window at every loss, whoever caused it. Over 80 ms with one packet in a thousand
//! lost, that left 6 Mbit/s and made a modest replication stream wait for half a minute. Where the
//! bandwidth is reserved, there is nobody to yield to: the window then never falls below it.

use quinn::congestion::{Controller, ControllerFactory, CubicConfig};
use quinn_proto::RttEstimator;
use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

/// Makes Cubic controllers whose window stays at or above `bytes`.
pub(super) struct FloorConfig {
    pub bytes: u64,
}

struct Floor {
    cubic: Box<dyn Controller>,
    bytes: u64,
}

impl ControllerFactory for FloorConfig {
    fn build(self: Arc<Self>, now: Instant, mtu: u16) -> Box<dyn Controller> {
        Box::new(Floor { cubic: Arc::new(CubicConfig::default()).build(now, mtu), bytes: self.bytes })
    }
}

impl Controller for Floor {
    fn window(&self) -> u64 {
        self.cubic.window().max(self.bytes)
    }

    fn initial_window(&self) -> u64 {
        self.cubic.initial_window().max(self.bytes)
    }

    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet: u64) {
        self.cubic.on_sent(now, bytes, last_packet)
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        self.cubic.on_ack(now, sent, bytes, app_limited, rtt)
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, largest: Option<u64>) {
        self.cubic.on_end_acks(now, in_flight, app_limited, largest)
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, persistent: bool, lost_bytes: u64) {
        self.cubic.on_congestion_event(now, sent, persistent, lost_bytes)
    }

    fn on_mtu_update(&mut self, mtu: u16) {
        self.cubic.on_mtu_update(mtu)
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Floor { cubic: self.cubic.clone_box(), bytes: self.bytes })
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "any instant will do")]
    fn losses_do_not_shrink_the_window_below_the_floor() {
        let start = Instant::now();
        let mut with = Arc::new(FloorConfig { bytes: 2 << 20 }).build(start, 1200);
        let mut without = Arc::new(CubicConfig::default()).build(start, 1200);
        for second in 1..10 {
            let sent = start + Duration::from_secs(second);
            for controller in [&mut with, &mut without] {
                controller.on_congestion_event(sent + Duration::from_millis(80), sent, false, 1200);
            }
        }
        assert_eq!(with.window(), 2 << 20);
        assert!(without.window() < 1 << 16);
    }
}
