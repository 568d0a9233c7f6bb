//! Words of Octavia's that rows and answers have.

use std::fmt;

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};

/// Makes an enumeration whose values have names in rows and answers.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$value_doc:meta])* $value:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name {
            $($(#[$value_doc])* $value),+
        }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$value),+];

            /// Its name.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$value => $text),+
                }
            }

            /// Reads a name.
            ///
            /// # Errors
            /// There is none of this name; the text says which there are.
            pub fn parse(text: &str) -> Result<Self, String> {
                Self::ALL.iter().copied().find(|value| value.as_str() == text).ok_or_else(|| {
                    let names: Vec<_> = Self::ALL.iter().map(|value| value.as_str()).collect();
                    format!("not one of {}: {text:?}", names.join(", "))
                })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromSql for $name {
            fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
                Self::parse(value.as_str()?).map_err(|reason| FromSqlError::Other(reason.into()))
            }
        }

        impl ToSql for $name {
            fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
                Ok(self.as_str().into())
            }
        }
    };
}

words! {
    /// `provisioning_status`: whether what the tenant has said is so already.
    ProvisioningStatus {
        /// It is.
        Active = "ACTIVE",
        /// It is being made.
        PendingCreate = "PENDING_CREATE",
        /// It is being changed.
        PendingUpdate = "PENDING_UPDATE",
        /// It is about to go.
        PendingDelete = "PENDING_DELETE",
        /// It is not, and is tried again.
        Error = "ERROR",
    }
}

words! {
    /// `operating_status`: whether it works.
    OperatingStatus {
        /// It does.
        Online = "ONLINE",
        /// New clients are sent elsewhere: weight 0.
        Draining = "DRAINING",
        /// It is switched off, or nobody has heard of it.
        Offline = "OFFLINE",
        /// A part of it does not.
        Degraded = "DEGRADED",
        /// None of it does.
        Error = "ERROR",
        /// Nobody looks.
        NoMonitor = "NO_MONITOR",
    }
}

words! {
    /// How many amphorae a load balancer has.
    Topology {
        /// One.
        Single = "SINGLE",
        /// A pair, by VRRP.
        ActiveStandby = "ACTIVE_STANDBY",
    }
}

words! {
    /// `status` of an amphora.
    AmphoraStatus {
        /// It is being made.
        Booting = "BOOTING",
        /// A spare that is ready.
        Ready = "READY",
        /// It carries its load balancer.
        Allocated = "ALLOCATED",
        /// It is being taken down.
        PendingDelete = "PENDING_DELETE",
        /// It could not be made, or was lost.
        Error = "ERROR",
        /// It was fenced by a failover.
        FailoverStopped = "FAILOVER_STOPPED",
    }
}

words! {
    /// `role` of an amphora.
    Role {
        /// It is alone.
        Standalone = "STANDALONE",
        /// It has the higher priority.
        Master = "MASTER",
        /// It has the lower one.
        Backup = "BACKUP",
    }
}
