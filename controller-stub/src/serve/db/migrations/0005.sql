-- What heartbeats call the document that an amphora was told last, and since when it has it.
ALTER TABLE amphora ADD COLUMN applied_document TEXT;
ALTER TABLE amphora ADD COLUMN applied_at INTEGER;
