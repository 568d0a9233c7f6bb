-- Amphorae without a load balancer, which wait for one: what they can be is decided when they are made.
ALTER TABLE amphora ADD COLUMN topology TEXT CHECK (topology IN ('SINGLE', 'ACTIVE_STANDBY'));
-- Since when it has its load balancer, where it was made before it.
ALTER TABLE amphora ADD COLUMN taken_at INTEGER;
UPDATE amphora SET topology = (SELECT topology FROM load_balancer l WHERE l.id = load_balancer_id);

ALTER TABLE work RENAME TO work_before;
CREATE TABLE work (
    kind TEXT NOT NULL CHECK (kind IN ('LOAD_BALANCER', 'LOAD_BALANCER_FAILOVER', 'AMPHORA_CREATE', 'AMPHORA_FAILOVER',
        'AMPHORA_CONFIGURE', 'AMPHORA_DELETE')),
    subject TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    not_before INTEGER NOT NULL DEFAULT 0,
    reason TEXT,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (kind, subject)
) STRICT, WITHOUT ROWID;
INSERT INTO work (kind, subject, attempts, not_before, reason, created_at)
    SELECT kind, subject, attempts, not_before, reason, created_at FROM work_before;
DROP TABLE work_before;
CREATE INDEX work_time ON work (not_before);
