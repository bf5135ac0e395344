//! What this node sees of the cluster.

use crate::api::ApiRole;
use beam_wire::message::api::{ApiLoadReply, ApiStatusReply, NodeStatus};
use beam_wire::quic::NodeAddress;
use beam_wire::{Name, Role};
use futures::future::join_all;
use std::collections::BTreeMap;
use std::time::Duration;

/// A log node that says nothing for so long counts as not answering.
const INFO_PATIENCE: Duration = Duration::from_secs(2);

impl ApiRole {
    /// Asks every log node that DNS names how it is, and adds what the views last said.
    pub(super) async fn status(&self) -> ApiStatusReply {
        let deadline = self.env.now() + INFO_PATIENCE;
        let nodes = self.directory.nodes_everywhere(Role::Log);
        let log = nodes.into_iter().map(|address| async move {
            let status = match self.env.timeout_at(deadline, self.log.info(&address.node, deadline)).await {
                Ok(Ok(info)) => Ok(info),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err(format!("it did not answer within {} s", INFO_PATIENCE.as_secs())),
            };
            NodeStatus { node: address.node, datacenter: address.datacenter, status }
        });
        let log = join_all(log).await;
        let views = self.views.all().into_iter().map(|(address, status)| NodeStatus {
            node: address.node,
            datacenter: address.datacenter,
            status: status.map(|status| (*status).clone()).map_err(|error| error.to_string()),
        });
        ApiStatusReply {
            node: self.node.clone(),
            datacenter: self.datacenter.clone(),
            recent: self.recent_now().ok(),
            log,
            views: views.collect(),
            hedges: self.fanout.total.hedges(),
            requests: self.fanout.total.requests(),
        }
    }

    /// How much this node has to do and has done, and what its views say of the same.
    pub(super) async fn load(&self) -> ApiLoadReply {
        let deadline = self.env.now() + INFO_PATIENCE;
        let nodes: BTreeMap<Name, NodeAddress> =
            self.views.all().into_iter().map(|(address, _)| (address.node.clone(), address)).collect();
        let views = nodes.into_values().map(|address| async move {
            let asked = self.env.timeout_at(deadline, self.views.load(&address, deadline)).await;
            let status = match asked {
                Ok(load) => load.map_err(|error| error.to_string()),
                Err(_) => Err(format!("it did not answer within {} s", INFO_PATIENCE.as_secs())),
            };
            NodeStatus { node: address.node, datacenter: address.datacenter, status }
        });
        let (total, admission) = (&self.fanout.total, &self.admission);
        ApiLoadReply {
            requests: total.requests(),
            hedges: total.hedges(),
            probes: total.probes(),
            out: self.fanout.out(),
            running: admission.running(),
            waiting: admission.waiting(),
            refused: admission.refused(),
            views: join_all(views).await,
        }
    }
}
