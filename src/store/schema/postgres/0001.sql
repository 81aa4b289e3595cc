-- The servers that share this database. Facts about webhooks are of one server.
CREATE TABLE servers (
    name TEXT PRIMARY KEY,
    -- Its last commit: which life of its courier made it, and the number it had there.
    courier BIGINT NOT NULL DEFAULT 0,
    commit_number BIGINT NOT NULL DEFAULT 0,
    -- Up to which report its last switchboard's are stored.
    life BIGINT,
    sequence BIGINT,
    CHECK ((life IS NULL) = (sequence IS NULL))
);

-- Who endpoints were told is there: the channel itself, or the user of that id in it. Bytes, since
-- TEXT refuses a character that ids may have.
CREATE TABLE told (
    server TEXT NOT NULL,
    channel TEXT NOT NULL,
    is_member BOOLEAN NOT NULL,
    member BYTEA NOT NULL,
    PRIMARY KEY (server, channel, is_member, member)
);

-- Requests that were not delivered yet, as they will be sent; convert_from(body, 'UTF8') shows one.
CREATE TABLE letters (
    server TEXT NOT NULL,
    id BIGINT NOT NULL,
    app_id TEXT NOT NULL,
    url TEXT NOT NULL,
    lane SMALLINT NOT NULL,
    time_ms BIGINT NOT NULL,
    body BYTEA NOT NULL,
    PRIMARY KEY (server, id)
);
