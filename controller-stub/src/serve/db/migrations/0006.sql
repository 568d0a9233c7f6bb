-- An amphora's port that nobody needs any more: it is being unplugged, and goes then.
ALTER TABLE port ADD COLUMN leaving INTEGER NOT NULL DEFAULT 0 CHECK (leaving IN (0, 1));
