-- What Octavia has no word for.
ALTER TABLE load_balancer ADD COLUMN amphora TEXT CHECK (amphora IS NULL OR json_valid(amphora));
ALTER TABLE listener ADD COLUMN amphora TEXT CHECK (amphora IS NULL OR json_valid(amphora));
ALTER TABLE pool ADD COLUMN amphora TEXT CHECK (amphora IS NULL OR json_valid(amphora));
-- A policy with `amphora.action` has that in `action` as well.
ALTER TABLE l7policy ADD COLUMN amphora TEXT CHECK (amphora IS NULL OR json_valid(amphora));

CREATE TABLE rate_limit_policy (
    id TEXT PRIMARY KEY,
    project_id TEXT NOT NULL,
    listener_id TEXT NOT NULL REFERENCES listener (id) ON DELETE CASCADE,
    name TEXT NOT NULL DEFAULT '',
    description TEXT NOT NULL DEFAULT '',
    enabled INTEGER NOT NULL DEFAULT 1 CHECK (enabled IN (0, 1)),
    provisioning_status TEXT NOT NULL
        CHECK (provisioning_status IN ('ACTIVE', 'PENDING_CREATE', 'PENDING_UPDATE', 'PENDING_DELETE', 'ERROR')),
    operating_status TEXT NOT NULL DEFAULT 'OFFLINE',
    action TEXT NOT NULL,
    amphora TEXT CHECK (amphora IS NULL OR json_valid(amphora)),
    tags TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(tags)),
    created_at INTEGER NOT NULL,
    updated_at INTEGER,
    generation INTEGER NOT NULL
) STRICT;
CREATE INDEX rate_limit_policy_listener ON rate_limit_policy (listener_id);
CREATE INDEX rate_limit_policy_project ON rate_limit_policy (project_id);

CREATE TABLE rate_limit_rule (
    id TEXT PRIMARY KEY,
    project_id TEXT NOT NULL,
    rate_limit_policy_id TEXT NOT NULL REFERENCES rate_limit_policy (id) ON DELETE CASCADE,
    name TEXT NOT NULL DEFAULT '',
    provisioning_status TEXT NOT NULL
        CHECK (provisioning_status IN ('ACTIVE', 'PENDING_CREATE', 'PENDING_UPDATE', 'PENDING_DELETE', 'ERROR')),
    operating_status TEXT NOT NULL DEFAULT 'OFFLINE',
    metric TEXT NOT NULL,
    threshold INTEGER NOT NULL,
    interval INTEGER NOT NULL DEFAULT 30,
    urls TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(urls)),
    tags TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(tags)),
    created_at INTEGER NOT NULL,
    updated_at INTEGER,
    generation INTEGER NOT NULL
) STRICT;
CREATE INDEX rate_limit_rule_policy ON rate_limit_rule (rate_limit_policy_id);
CREATE INDEX rate_limit_rule_project ON rate_limit_rule (project_id);
