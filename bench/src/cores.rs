//! Cores apart: some for the nodes, the others for whoever asks them, so that asking takes nothing of what answering needs.
//!
//! Processes and threads run where the thread that starts them may run, and take no more threads than they have cores.

use anyhow::Result;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Which cores are whose.
pub struct Cores {
    nodes: CpuSet,
    callers: CpuSet,
}

impl Cores {
    /// Half of the cores that this process may use for callers, the rest for nodes. None where there is one only.
    pub fn apart() -> Result<Option<Cores>> {
        let all = sched_getaffinity(None)?;
        let mut cores = Cores { nodes: all, callers: CpuSet::new() };
        for core in (0..CpuSet::MAX_CPU).filter(|core| all.is_set(*core)).take(all.count() as usize / 2) {
            cores.nodes.unset(core);
            cores.callers.set(core);
        }
        Ok((cores.callers.count() > 0).then_some(cores))
    }

    /// How many nodes have, and how many callers.
    pub fn counts(&self) -> (u32, u32) {
        (self.nodes.count(), self.callers.count())
    }

    /// From now on this thread, and what it starts, runs on the callers' cores.
    pub fn become_caller(&self) -> Result<()> {
        Ok(sched_setaffinity(None, &self.callers)?)
    }

    /// Starts a node on the nodes' cores, from a caller's thread.
    pub fn start_node<T>(&self, start: impl FnOnce() -> T) -> Result<T> {
        sched_setaffinity(None, &self.nodes)?;
        let started = start();
        self.become_caller()?;
        Ok(started)
    }
}

/// How many cores this thread may use.
pub fn usable() -> Result<u32> {
    Ok(sched_getaffinity(None)?.count())
}
