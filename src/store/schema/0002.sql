-- Devices that push notifications can reach. Times are milliseconds since 1970.
CREATE TABLE device_registrations (
    id TEXT PRIMARY KEY NOT NULL,
    app_id TEXT NOT NULL,
    device_id TEXT NOT NULL,
    user_id TEXT,
    platform TEXT NOT NULL CHECK (platform IN ('ios', 'android', 'web')),
    service TEXT NOT NULL CHECK (service IN ('apns', 'apns-sandbox', 'fcm', 'fcm-fid', 'webpush')),

    -- AES-256-GCM; base64 of the cipher text, the IV and the tag.
    encrypted_token TEXT NOT NULL,
    token_iv TEXT NOT NULL CHECK (length(token_iv) = 16),
    token_tag TEXT NOT NULL CHECK (length(token_tag) = 24),
    token_key_id TEXT NOT NULL REFERENCES token_keys (key_id),
    -- What the tag vouches for: 1 'push_token' alone, 2 the row, too.
    token_binding INTEGER NOT NULL CHECK (token_binding IN (1, 2)),
    -- HMAC of the token: finds its row without being it.
    token_index TEXT NOT NULL,

    token_set_at INTEGER NOT NULL,
    token_expires_at INTEGER,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    accepted_at INTEGER,
    suspicions INTEGER NOT NULL DEFAULT 0,
    is_active INTEGER NOT NULL DEFAULT 1 CHECK (is_active IN (0, 1)),
    inactive_reason TEXT,
    inactive_since INTEGER,

    last_known_latitude REAL CHECK (last_known_latitude BETWEEN -90 AND 90),
    last_known_longitude REAL CHECK (last_known_longitude BETWEEN -180 AND 180),
    device_metadata TEXT,
    locale TEXT,
    time_zone TEXT,

    UNIQUE (app_id, device_id),
    CHECK (is_active = (inactive_reason IS NULL)),
    CHECK (is_active = (inactive_since IS NULL)),
    CHECK ((last_known_latitude IS NULL) = (last_known_longitude IS NULL))
) STRICT;

-- A token is of one active device. One that was replaced keeps what it had until it is removed.
CREATE UNIQUE INDEX device_by_token ON device_registrations (app_id, token_index) WHERE is_active;
CREATE INDEX device_by_user ON device_registrations (app_id, user_id) WHERE user_id IS NOT NULL;
CREATE INDEX device_by_app ON device_registrations (app_id, id);
CREATE INDEX device_by_platform ON device_registrations (app_id, platform, id);
CREATE INDEX device_by_expiry ON device_registrations (token_expires_at)
    WHERE is_active AND token_expires_at IS NOT NULL;
CREATE INDEX device_by_end ON device_registrations (inactive_since) WHERE NOT is_active;
CREATE INDEX device_by_key ON device_registrations (token_key_id, token_binding);
CREATE INDEX device_by_place
    ON device_registrations (app_id, last_known_latitude, last_known_longitude)
    WHERE last_known_latitude IS NOT NULL;

-- The same without what the token became; all that is not the courier reads this.
CREATE VIEW device_registrations_safe AS
SELECT
    id, app_id, device_id, user_id, platform, service,
    token_key_id, token_binding, token_set_at, token_expires_at,
    created_at, updated_at, accepted_at, suspicions,
    is_active, inactive_reason, inactive_since,
    last_known_latitude, last_known_longitude, device_metadata, locale, time_zone
FROM device_registrations;

CREATE TABLE device_topics (
    device TEXT NOT NULL REFERENCES device_registrations (id) ON DELETE CASCADE,
    app_id TEXT NOT NULL,
    topic TEXT NOT NULL,
    PRIMARY KEY (device, topic)
) STRICT, WITHOUT ROWID;
CREATE INDEX device_topics_by_topic ON device_topics (app_id, topic, device);

-- The keys that rows may need, by name; the fingerprint finds another key under the same name.
CREATE TABLE token_keys (
    key_id TEXT PRIMARY KEY NOT NULL,
    fingerprint TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    -- How many tokens it has sealed; a key is good for 2^32.
    sealed INTEGER NOT NULL DEFAULT 0,
    -- Whether all tokens are to be sealed with it, and some are not yet.
    is_rotating INTEGER NOT NULL DEFAULT 0 CHECK (is_rotating IN (0, 1))
) STRICT, WITHOUT ROWID;

-- How many devices each app has, so that nobody has to count them.
CREATE TABLE device_counts (
    app_id TEXT PRIMARY KEY NOT NULL,
    devices INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TRIGGER device_comes AFTER INSERT ON device_registrations BEGIN
    INSERT INTO device_counts (app_id, devices) VALUES (new.app_id, 1)
        ON CONFLICT (app_id) DO UPDATE SET devices = devices + 1;
END;
CREATE TRIGGER device_goes AFTER DELETE ON device_registrations BEGIN
    UPDATE device_counts SET devices = devices - 1 WHERE app_id = old.app_id;
END;
