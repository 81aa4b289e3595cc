-- What apps prove themselves with to push providers, as far as it was given while the server ran. The columns
-- are those of the schema for SQLite.
CREATE TABLE credentials (
    app_id TEXT NOT NULL,
    name TEXT NOT NULL,
    -- For which devices: an app has one for each.
    family TEXT NOT NULL,
    -- Whether an operator at the machine has put it there.
    is_operators BOOLEAN NOT NULL,
    -- All of its fields as JSON. AES-256-GCM; base64 of the cipher text, the IV and the tag.
    sealed TEXT NOT NULL,
    sealed_iv TEXT NOT NULL CHECK (length(sealed_iv) = 16),
    sealed_tag TEXT NOT NULL CHECK (length(sealed_tag) = 24),
    key_id TEXT NOT NULL REFERENCES token_keys (key_id),
    -- Of all credentials, when this one was put.
    revision BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (app_id, name),
    UNIQUE (app_id, family)
);
CREATE INDEX credential_by_key ON credentials (key_id);

-- How often credentials have changed; one row.
CREATE TABLE credential_changes (
    one BIGINT PRIMARY KEY CHECK (one = 1),
    revision BIGINT NOT NULL
);
INSERT INTO credential_changes (one, revision) VALUES (1, 0);
