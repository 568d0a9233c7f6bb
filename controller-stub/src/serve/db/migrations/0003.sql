-- What was said last to an amphora of whom it is to trust, and who has issued its certificate.
ALTER TABLE amphora ADD COLUMN trust TEXT;
