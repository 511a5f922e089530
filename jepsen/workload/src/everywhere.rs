//! One person's clients in all regions: each knows one region only, and the session goes along as
//! bytes.

use anabranch_client::Client;

use crate::home::Home;

/// A client of every region, for one person.
pub(crate) struct Everywhere {
    clients: Vec<Client>,
}

impl Everywhere {
    /// For client `nth` of a kind.
    pub(crate) fn new(home: &Home, purpose: &str, nth: u32) -> Self {
        let regions = 0..home.sites.regions().len();
        let client = |region| home.client_of(region, purpose, nth, false);
        Self { clients: regions.map(client).collect() }
    }
    /// The client of a region.
    pub(crate) fn client(&self, region: usize) -> &Client {
        &self.clients[region]
    }
    /// Carries the session from one region's client to another's, as bytes.
    pub(crate) fn carry(&self, from: usize, to: usize) {
        let token = self.clients[from].session().token();
        // What the other knew is in it: the person carries one token only, all the time.
        self.clients[to].session().replace(&token).expect("a token that was given is one");
    }
}
