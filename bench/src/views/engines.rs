//! Two storage engines with the same keys: the views' own, on fjall, and redb.

use anyhow::{Context, Result};
use beam_node::view::keys::{Key, Order, write_index};
use beam_node::view::store::{Deletions, Heat, Store, StoreOptions};
use beam_wire::message::view::Served;
use beam_wire::{Fact, LogIndex, Range, Space};
use redb::{Database, Durability, ReadableDatabase, TableDefinition};
use std::path::Path;
use std::sync::Mutex;

/// Every order of a view that holds all facts.
pub const ORDERS: [Order; 3] = [Order::Spog, Order::Posg, Order::Opsg];

/// What becomes of a fact in one order.
#[derive(Clone, Copy)]
pub struct Change {
    pub order: Order,
    pub fact: Fact,
    /// Since when it is live; none if it is not any more.
    pub live: Option<LogIndex>,
    /// A version that is past now: when it was deleted, and inserted.
    pub past: Option<(LogIndex, LogIndex)>,
}

/// What an index of facts does.
pub trait Engine: Send + Sync {
    /// How many of these facts are live.
    fn live(&self, order: Order, facts: &[Fact]) -> Result<usize>;
    /// Makes changes, all or none, readable at once. Safe from a kill of the process.
    fn write(&self, changes: &[Change]) -> Result<()>;
    /// Changes one fact in every order, as a view at the end of its log does.
    fn change(&self, fact: &Fact, live: Option<LogIndex>, past: Option<(LogIndex, LogIndex)>) -> Result<()>;
    /// How many live facts begin with each prefix, of one version.
    fn count(&self, order: Order, prefixes: &[Key]) -> Result<u64>;
    /// Makes all that was written durable.
    fn persist(&self) -> Result<()>;
}

/// Opens an engine, with so much memory for its caches and for what waits to be written.
pub fn open(engine: super::Name, directory: &Path, cache_bytes: u64) -> Result<Box<dyn Engine>> {
    Ok(match engine {
        super::Name::Fjall => {
            let options = StoreOptions { cache_bytes, ..StoreOptions::default() };
            let serves = [Space::Subject, Space::Object].map(|space| Served { space, range: Range::ALL });
            let store = Store::open(directory, &"bench".parse()?, &serves, &options)?;
            Box::new(View { store, deletions: Mutex::new(Deletions::new()) })
        }
        super::Name::Redb => {
            std::fs::create_dir_all(directory)?;
            // What fjall has for memtables, it may have for pages.
            let cache = cache_bytes + StoreOptions::default().write_bytes;
            let mut database = Database::builder();
            database.set_cache_size(usize::try_from(cache)?);
            Box::new(Redb(database.create(directory.join("facts.redb"))?))
        }
    })
}

struct View {
    store: Store,
    deletions: Mutex<Deletions>,
}

impl Engine for View {
    fn live(&self, order: Order, facts: &[Fact]) -> Result<usize> {
        let mut live = 0;
        for fact in facts {
            live += usize::from(self.store.find(order, fact)?.live.is_some());
        }
        Ok(live)
    }

    fn write(&self, changes: &[Change]) -> Result<()> {
        let mut batch = self.store.batch();
        for Change { order, fact, live, past } in changes {
            batch.put_live(*order, fact, *live, Heat::Cold);
            if let Some((deleted, inserted)) = past {
                batch.put_past(*order, fact, *deleted, *inserted);
            }
        }
        Ok(batch.commit()?)
    }

    fn change(&self, fact: &Fact, live: Option<LogIndex>, past: Option<(LogIndex, LogIndex)>) -> Result<()> {
        let mut deletions = self.deletions.lock().expect("nothing panics while it holds this");
        let heat = match self.store.find(Order::Spog, fact)?.hot {
            true => Heat::Hot,
            false if past.is_some() && deletions.count(1) => Heat::Rising,
            false => Heat::Cold,
        };
        let mut batch = self.store.batch();
        for order in ORDERS {
            batch.put_live(order, fact, live, heat);
            if let Some((deleted, inserted)) = past {
                batch.put_past(order, fact, deleted, inserted);
            }
        }
        if let Some(since) = live.or(past.map(|(deleted, _)| deleted)).filter(|_| heat != Heat::Cold) {
            batch.put_hot(fact, live.is_some(), since);
        }
        Ok(batch.commit()?)
    }

    fn count(&self, order: Order, prefixes: &[Key]) -> Result<u64> {
        let snapshot = self.store.snapshot();
        let mut count = 0;
        for prefix in prefixes {
            for row in snapshot.live_prefix(order, prefix) {
                row?;
                count += 1;
            }
        }
        Ok(count)
    }

    fn persist(&self) -> Result<()> {
        Ok(self.store.persist()?)
    }
}

struct Redb(Database);

/// Keys and values as the views' own engine has them.
type Table = TableDefinition<'static, &'static [u8], &'static [u8]>;

fn live(order: Order) -> Table {
    TableDefinition::new(match order {
        Order::Spog => "live-spog",
        Order::Posg => "live-posg",
        Order::Opsg => "live-opsg",
    })
}

fn past(order: Order) -> Table {
    TableDefinition::new(match order {
        Order::Spog => "past-spog",
        Order::Posg => "past-posg",
        Order::Opsg => "past-opsg",
    })
}

impl Redb {
    fn commit(&self, changes: &[Change], durability: Durability) -> Result<()> {
        let mut transaction = self.0.begin_write()?;
        transaction.set_durability(durability)?;
        for order in ORDERS {
            let (mut live, mut past) = (transaction.open_table(live(order))?, transaction.open_table(past(order))?);
            for change in changes.iter().filter(|change| change.order == order) {
                let key = Key::live(order, &change.fact);
                match change.live {
                    Some(inserted) => {
                        let (value, length) = write_index(inserted);
                        live.insert(key.as_ref(), &value[..length])?;
                    }
                    None => {
                        live.remove(key.as_ref())?;
                    }
                }
                if let Some((deleted, inserted)) = change.past {
                    past.insert(Key::past(order, &change.fact, deleted, inserted).as_ref(), &[][..])?;
                }
            }
        }
        Ok(transaction.commit()?)
    }
}

impl Engine for Redb {
    fn live(&self, order: Order, facts: &[Fact]) -> Result<usize> {
        let transaction = self.0.begin_read()?;
        let table = match transaction.open_table(live(order)) {
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(0),
            table => table?,
        };
        let mut live = 0;
        for fact in facts {
            live += usize::from(table.get(Key::live(order, fact).as_ref())?.is_some());
        }
        Ok(live)
    }

    /// Every commit must be safe from a kill of the process, as in the views' own engine, and its only way is to
    /// sync. `None` is what comes closest: what the process has not persisted is lost when it is killed, which a
    /// view could make good from the log.
    fn write(&self, changes: &[Change]) -> Result<()> {
        self.commit(changes, Durability::None)
    }

    fn change(&self, fact: &Fact, live: Option<LogIndex>, past: Option<(LogIndex, LogIndex)>) -> Result<()> {
        self.write(&ORDERS.map(|order| Change { order, fact: *fact, live, past }))
    }

    fn count(&self, order: Order, prefixes: &[Key]) -> Result<u64> {
        let transaction = self.0.begin_read()?;
        let table = transaction.open_table(live(order))?;
        let mut count = 0;
        for prefix in prefixes {
            for row in table.range(prefix.as_ref()..)? {
                if !row?.0.value().starts_with(prefix.as_ref()) {
                    break;
                }
                count += 1;
            }
        }
        Ok(count)
    }

    fn persist(&self) -> Result<()> {
        self.commit(&[], Durability::Immediate).context("persisting")
    }
}
