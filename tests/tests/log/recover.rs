//! The majority of the log is lost for ever, and what is left goes on in a new epoch.

use super::cluster::{Cluster, name};
use super::{disk, ms, wan};
use beam_node::log::disk_sim::Loss;
use beam_node::log::survivors::{NoRecovery, Plan, plan};
use beam_node::recovery::{carry_out, survey};
use beam_node::remote::log::RemoteLog;
use beam_wire::env::sim::SimWorld;
use beam_wire::error::Retry;
use beam_wire::message::log::{Apply, Change, RecoverPart};
use beam_wire::{CallError, Code, Epoch, LogIndex, Name};
use std::sync::{Arc, Mutex};

const THREE: [(&str, &str); 3] = [("log-va", "va"), ("log-or", "or"), ("log-ie", "ie")];
const FIVE: [(&str, &str); 5] = [("va-1", "va"), ("va-2", "va"), ("or-1", "or"), ("or-2", "or"), ("ie-1", "ie")];

/// A story of these log nodes, which all run.
fn story<F: Future>(seed: u64, hosts: &[(&str, &str)], tell: impl FnOnce(Cluster) -> F) -> F::Output {
    SimWorld::run(seed, |world| async move {
        let hosts: Vec<_> = hosts.iter().map(|(host, dc)| ((*host).to_owned(), *dc)).collect();
        let mut cluster = Cluster::of(&world, &hosts, disk(), wan());
        for (host, _) in &hosts {
            cluster.start(host).await;
        }
        tell(cluster).await
    })
}

impl Cluster {
    /// What `beam log recover` shows.
    async fn plan(&self, admin: &RemoteLog) -> Result<Plan, NoRecovery> {
        let nodes: Vec<Name> = self.machines.keys().map(|host| name(host)).collect();
        plan(&name("beam"), &survey(&self.env, admin, &nodes).await)
    }

    /// What `beam log recover --apply` does, while those restart who shall.
    async fn carry_out(&mut self, admin: &RemoteLog, plan: &Plan) -> Result<(), CallError> {
        let ended = Arc::new(Mutex::new(None));
        let (env, log, plan, end) = (self.env.clone(), admin.clone(), plan.clone(), ended.clone());
        let deadline = self.soon(120);
        let _task = self.env.tasks().serve("operator", async move {
            let result = carry_out(&env, &log, &plan, deadline, |step| println!("{step}")).await;
            *end.lock().unwrap() = Some(result);
        });
        loop {
            if let Some(result) = ended.lock().unwrap().take() {
                return result;
            }
            self.restart_those_who_shall().await;
            self.env.sleep(ms(20)).await;
        }
    }

    /// Changes the members, however long that takes.
    async fn change(&self, admin: &RemoteLog, change: Change) {
        let deadline = self.soon(120);
        loop {
            let seen = admin.change(&change, None, deadline).await.unwrap().plan.at;
            match admin.change(&change, Some(Apply { seen, force: true }), deadline).await {
                Ok(reply) if reply.done.is_some() => return,
                Ok(_) => {}
                Err(e) => assert!(e.is_retryable() || e.code == Code::Conflict, "{e}"),
            }
            assert!(self.env.now() < deadline, "{change:?} is not done");
            self.env.sleep(ms(200)).await;
        }
    }

    async fn append(&self, client: &RemoteLog, body: &str) -> LogIndex {
        client.append(vec![body.to_owned().into()], self.soon(30)).await.unwrap()[0].index
    }

    /// Two datacenters are gone for ever, and nobody has heard a leader for a while.
    async fn lose(&mut self, hosts: &[&str]) {
        for host in hosts {
            self.kill(host, Loss::Unsynced);
        }
        self.env.sleep(ms(15_000)).await;
    }
}

#[test]
fn the_last_of_three_goes_on_and_the_others_are_refused_when_they_come_back() {
    story(70, &THREE, async |mut cluster| {
        let clients = ["va", "or", "ie"].map(|dc| cluster.client(dc));
        let admin = cluster.operator("va");
        let mut before = Vec::new();
        for n in 0..20 {
            before.push(cluster.append(&clients[n % 3], &format!("before {n}")).await);
        }
        let everywhere = |c: &Cluster| c.info("log-va").unwrap().committed >= before.last().copied();
        cluster.wait(|c| everywhere(c).then_some(())).await;
        // While a majority answers, nothing can be recovered.
        assert!(matches!(cluster.plan(&admin).await, Err(NoRecovery::Leads { .. } | NoRecovery::NotLost { .. })));
        cluster.kill("log-or", Loss::Unsynced);
        cluster.env.sleep(ms(12_000)).await;
        assert!(cluster.plan(&admin).await.is_err(), "two of three are a majority");
        cluster.lose(&["log-ie"]).await;
        let refused = clients[0].append(vec!["lost".into()], cluster.soon(10)).await.unwrap_err();
        assert!([Code::NoQuorum, Code::Unavailable].contains(&refused.code), "{refused:?}");
        let plan = cluster.plan(&admin).await.unwrap();
        let chosen = plan.chosen.clone().unwrap();
        assert_eq!((chosen.node.as_str(), plan.lost.len(), plan.orders.len()), ("log-va", 2, 1));
        assert_eq!(plan.token, cluster.plan(&admin).await.unwrap().token, "the same survivors make the same plan");
        cluster.carry_out(&admin, &plan).await.unwrap();
        // Writes go on, at indexes that follow.
        let after = clients[0].append(vec!["after".into()], cluster.soon(30)).await.unwrap()[0];
        assert_eq!(after.epoch, plan.epoch);
        assert!(after.index > chosen.kept && plan.epoch > Epoch(1));
        let all = cluster.read_all(&clients[0], after.index.next()).await;
        for (n, index) in before.iter().enumerate() {
            assert_eq!(all[index], format!("before {n}"), "all that was acknowledged is there");
        }
        assert_eq!(all[&chosen.kept.next()], format!("begin {} {}", plan.epoch, chosen.kept));
        // Alone it needs nobody's answer, and never falls silent to let others lead.
        for _ in 0..40 {
            cluster.env.sleep(ms(250)).await;
            let began = cluster.env.now();
            clients[0].tail(true, cluster.soon(10)).await.unwrap();
            assert!(cluster.env.now() - began < ms(200), "a tail took {:?}", cluster.env.now() - began);
        }
        // The lost ones come back. They are a majority of what was, and would go on as before.
        cluster.start("log-or").await;
        cluster.start("log-ie").await;
        cluster.env.sleep(ms(5_000)).await;
        for client in &clients {
            let version = client.append(vec!["once more".into()], cluster.soon(30)).await.unwrap()[0];
            assert_eq!(version.epoch, plan.epoch, "it went to the node that lives");
            assert_eq!(client.tail(true, cluster.soon(10)).await.unwrap().epoch, plan.epoch);
        }
        assert_eq!(cluster.info("log-or").unwrap().epoch, Some(Epoch(1)));
        // The same command sees that, and sets their logs aside.
        let rest = cluster.plan(&admin).await.unwrap();
        assert_eq!((&rest.chosen, rest.epoch), (&None, plan.epoch));
        let parts: Vec<_> = rest.orders.iter().map(|order| (order.node.as_str(), order.part.clone())).collect();
        let aside = RecoverPart::SetAside { epoch: plan.epoch, founder: name("log-va") };
        assert_eq!(parts, [("log-ie", aside.clone()), ("log-or", aside)]);
        cluster.carry_out(&admin, &rest).await.unwrap();
        for host in ["log-or", "log-ie"] {
            assert_eq!(cluster.info(host).unwrap().last, None);
            let kept = cluster.machines[host].disk.clone();
            let names = beam_node::log::disk::Disk::list(&kept).unwrap();
            assert!(names.iter().any(|file| file.ends_with("-meta") && file.starts_with("aside-")), "{names:?}");
        }
        assert!(matches!(cluster.plan(&admin).await, Err(NoRecovery::Leads { .. } | NoRecovery::NotLost { .. })));
        // They join anew, and one may be lost again.
        for (host, dc) in &THREE[1..] {
            cluster.change(&admin, Change::Add { node: name(host), datacenter: name(dc) }).await;
        }
        cluster.change(&admin, Change::Promote { nodes: vec![name("log-or"), name("log-ie")] }).await;
        cluster.kill("log-va", Loss::Unsynced);
        let last = clients[1].append(vec!["last".into()], cluster.soon(60)).await.unwrap()[0];
        assert_eq!(last.epoch, plan.epoch);
        let all = cluster.read_all(&clients[2], last.index.next()).await;
        for (n, index) in before.iter().enumerate() {
            assert_eq!(all[index], format!("before {n}"), "they hold all that was kept");
        }
        // Who has read the old epoch up to what was kept can go on at a new member, too.
        let entries = clients[1].read(Some(Epoch(1)), chosen.kept.next(), true).next().await.unwrap().unwrap();
        assert_eq!(entries.epoch, plan.epoch);
    });
}

#[test]
fn of_two_survivors_the_newer_log_is_kept_and_a_plan_holds_only_while_nothing_changes() {
    for seed in 80..84 {
        story(seed, &FIVE, async |mut cluster| {
            let client = cluster.client("va");
            let admin = cluster.operator("va");
            cluster.append(&client, "first").await;
            // One survivor lags: it was away for the last entries.
            let late = ["va-1", "va-2"][seed as usize % 2];
            let other = ["va-2", "va-1"][seed as usize % 2];
            cluster.kill(late, Loss::Unsynced);
            let last = cluster.append(&client, "second").await;
            let has = |c: &Cluster| c.info(other).unwrap().last >= Some(last);
            cluster.wait(|c| has(c).then_some(())).await;
            for host in ["or-1", "or-2", "ie-1"] {
                cluster.kill(host, Loss::Unsynced);
            }
            cluster.start(late).await;
            cluster.env.sleep(ms(15_000)).await;
            let plan = cluster.plan(&admin).await.unwrap();
            // If it was the leader that stayed, it may have told the late one meanwhile.
            let chosen = plan.chosen.clone().unwrap();
            assert!(chosen.kept >= last, "seed {seed}: {chosen:?}");
            assert_eq!(plan.orders.len(), 2);
            // A plan that was made for another state is refused by the node itself.
            let mut stale = plan.clone();
            stale.orders[0].seen.last = stale.orders[0].seen.last.map(|last| LogIndex(last.0 - 1));
            let refused = cluster.carry_out(&admin, &stale).await.unwrap_err();
            assert!(refused.message.contains("does not hold any more"), "{refused}");
            // Nobody's log is set aside before another has taken its place.
            let mut hasty = plan.clone();
            hasty.orders.remove(0);
            hasty.orders[0].token += 1;
            let refused = admin
                .recover(
                    &hasty.orders[0].node,
                    &beam_wire::message::log::LogRecover { order: Some(hasty.orders[0].clone()) },
                    cluster.soon(10),
                )
                .await
                .unwrap_err();
            assert!(refused.message.contains("does not say that it is in epoch"), "{refused}");
            cluster.carry_out(&admin, &plan).await.unwrap();
            let after = cluster.append(&client, "third").await;
            let all = cluster.read_all(&client, after.next()).await;
            assert_eq!((&all[&last][..], &all[&after][..]), (&b"second"[..], &b"third"[..]));
            let aside = [late, other].into_iter().find(|host| *host != chosen.node.as_str()).unwrap();
            assert_eq!(cluster.info(aside).unwrap().last, None);
        });
    }
}

/// The survivor did not hear of the last entries. Who has read them learns that they are not there any more; who has
/// not goes on, and never notices more than a new epoch.
#[test]
fn readers_of_what_is_lost_are_told_and_others_go_on() {
    story(90, &THREE, async |mut cluster| {
        let (near, far) = (cluster.client("va"), cluster.client("or"));
        let admin = cluster.operator("va");
        let common = cluster.append(&far, "common").await;
        cluster.wait(|c| (c.info("log-va").unwrap().committed >= Some(common)).then_some(())).await;
        // The data centers that will be lost go on without the one that will survive.
        cluster.cut_off("va");
        let lost = cluster.append(&far, "lost").await;
        assert!(lost > common);
        cluster.lose(&["log-or", "log-ie"]).await;
        cluster.world.net().heal();
        let plan = cluster.plan(&admin).await.unwrap();
        let kept = plan.chosen.clone().unwrap().kept;
        assert!(kept >= common && kept < lost, "{kept}");
        cluster.carry_out(&admin, &plan).await.unwrap();
        let after = cluster.append(&near, "after").await;
        // Beyond what was kept, and one that has seen only what was.
        let told = near.read(Some(Epoch(1)), lost.next(), true).next().await.unwrap_err();
        assert_eq!((told.code, &told.retry), (Code::WrongEpoch, &Retry::Never), "{told}");
        assert!(told.message.contains(&format!("kept the entries up to {kept}")), "{told}");
        let mut reader = near.read(Some(Epoch(1)), kept.next(), true);
        let entries = reader.next().await.unwrap().unwrap();
        assert_eq!((entries.epoch, entries.first), (plan.epoch, kept.next()));
        // An epoch that is no part of this log's past.
        let told = near.read(Some(Epoch(plan.epoch.0 - 1)), LogIndex(1), true).next().await.unwrap_err();
        assert!(told.message.contains("another life"), "{told}");
        // The old ones come back with what was lost, and nobody is shown it.
        cluster.start("log-or").await;
        cluster.start("log-ie").await;
        cluster.env.sleep(ms(5_000)).await;
        let all = cluster.read_all(&far, after.next()).await;
        assert_ne!(all.get(&lost).map(|body| &body[..]), Some(&b"lost"[..]));
        let refused = far.read(Some(Epoch(1)), lost.next(), true).next().await.unwrap_err();
        assert_eq!(refused.code, Code::WrongEpoch);
    });
}

/// Two operators, on two sides of a broken network, each believe the other side to be lost: one is wrong. The sides
/// never mix, and whoever sees both is told.
#[test]
fn two_recoveries_make_two_epochs_that_never_mix() {
    story(95, &FIVE, async |mut cluster| {
        let client = cluster.client("va");
        let (here, there) = (cluster.operator("va"), cluster.operator("or"));
        cluster.append(&client, "common").await;
        cluster.kill("ie-1", Loss::Unsynced);
        cluster.cut_off("va");
        cluster.env.sleep(ms(20_000)).await;
        let (one, other) = (cluster.plan(&here).await.unwrap(), cluster.plan(&there).await.unwrap());
        assert_ne!((one.token, one.epoch), (other.token, other.epoch));
        cluster.carry_out(&here, &one).await.unwrap();
        cluster.carry_out(&there, &other).await.unwrap();
        cluster.world.net().heal();
        cluster.env.sleep(ms(10_000)).await;
        let told = cluster.plan(&here).await.unwrap_err();
        assert!(matches!(told, NoRecovery::TwoLives { .. }), "{told}");
        let (founder, rival) = (one.founder.as_str(), other.founder.as_str());
        let members = |host: &str| -> Vec<String> {
            cluster.info(host).unwrap().members.iter().map(|m| m.node.to_string()).collect()
        };
        assert_eq!((members(founder), members(rival)), (vec![founder.to_owned()], vec![rival.to_owned()]));
    });
}
