-- Notifications that were accepted. Times are milliseconds since 1970.
CREATE TABLE notifications (
    -- A lower-case UUID.
    id TEXT PRIMARY KEY NOT NULL,
    app_id TEXT NOT NULL,
    -- As the caller gave it; the same again within its app is the same notification.
    idempotency_key TEXT,
    -- SHA-256 of what was asked for with that key, and what was answered; both as long as the key.
    fingerprint TEXT,
    answer TEXT,
    -- The public half of the key that asked for it.
    sender TEXT NOT NULL,
    -- What was asked for, as JSON (push/notify/spec).
    spec TEXT NOT NULL,
    -- Of that: an acknowledgement makes devices superfluous.
    is_reach INTEGER NOT NULL CHECK (is_reach IN (0, 1)),
    created_at INTEGER NOT NULL,
    -- Not before.
    send_at INTEGER NOT NULL,
    -- Not after; NULL: as long as the provider's patience lasts.
    expires_at INTEGER,
    -- 0 first.
    priority INTEGER NOT NULL,
    -- scheduled: its time has not come; expanding: not all devices are found yet; open: some are not
    -- settled; done; cancelled; expired before its time came.
    state TEXT NOT NULL CHECK (state IN ('scheduled', 'expanding', 'open', 'done', 'cancelled', 'expired')),
    -- How far the devices are found.
    cursor TEXT,
    settled_at INTEGER
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX notification_by_key ON notifications (app_id, idempotency_key)
    WHERE idempotency_key IS NOT NULL;
CREATE INDEX notification_by_time ON notifications (send_at)
    WHERE state IN ('scheduled', 'expanding');
CREATE INDEX notification_open ON notifications (id) WHERE state = 'open';
CREATE INDEX notification_by_age ON notifications (app_id, created_at, id);
-- What names no end is kept for 28 days.
CREATE INDEX notification_by_expiry ON notifications (coalesce(expires_at, send_at + 2419200000))
    WHERE state = 'open';
CREATE INDEX notification_by_end ON notifications (settled_at) WHERE settled_at IS NOT NULL;

-- The live side: one row for each user or channel that a notification is for.
CREATE TABLE reaches (
    notification TEXT NOT NULL REFERENCES notifications (id) ON DELETE CASCADE,
    kind TEXT NOT NULL CHECK (kind IN ('user', 'channel')),
    -- The user's id, or the channel's name without its app.
    name TEXT NOT NULL,
    -- When the event went to the connections, and how many these were.
    live_at INTEGER,
    connections INTEGER,
    -- How often it was ordered.
    orders INTEGER NOT NULL DEFAULT 0,
    acknowledged_at INTEGER,
    -- When the event is ordered again, as long as nobody said what came of it; then when the user's
    -- deliveries are queued if nobody acknowledges. NULL: nothing is to come.
    due_at INTEGER,
    -- When they were.
    pushed_at INTEGER,
    PRIMARY KEY (notification, kind, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX reach_by_time ON reaches (due_at) WHERE due_at IS NOT NULL;

-- The push side: one row for each device, or topic, that a notification is for.
CREATE TABLE deliveries (
    id INTEGER PRIMARY KEY,
    notification TEXT NOT NULL REFERENCES notifications (id) ON DELETE CASCADE,
    app_id TEXT NOT NULL,
    user_id TEXT,
    -- device_registrations.id, or
    device TEXT,
    -- a topic, condition or broadcast channel as JSON.
    address TEXT,
    -- The service of the device, 'fcm' for its topics, 'apns-channel' for broadcast channels: what is
    -- sent with one credential can be claimed without looking at the rest.
    way TEXT NOT NULL,
    -- held: waits for an acknowledgement that may not come; queued: to be sent from due_at on;
    -- accepted: a provider has it; failed, expired, cancelled: it goes nowhere.
    state TEXT NOT NULL
        CHECK (state IN ('held', 'queued', 'accepted', 'failed', 'expired', 'cancelled')),
    -- A row in hand is due when its lease ends.
    due_at INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    -- Until when a courier has it in hand; which one.
    claimed_until INTEGER,
    claimed_by TEXT,
    attempts INTEGER NOT NULL DEFAULT 0,
    -- How often nobody can say whether it has arrived.
    uncertain INTEGER NOT NULL DEFAULT 0,
    -- When it was first tried; when it may have been sent, if it must not be sent twice.
    tried_at INTEGER,
    asked_at INTEGER,
    -- The provider's word, or ours.
    reason TEXT,
    provider_id TEXT,
    settled_at INTEGER,
    CHECK ((device IS NULL) <> (address IS NULL))
) STRICT;
CREATE UNIQUE INDEX delivery_once ON deliveries (notification, device) WHERE device IS NOT NULL;
CREATE INDEX delivery_by_time ON deliveries (app_id, way, priority, due_at) WHERE state = 'queued';
CREATE INDEX delivery_claimed ON deliveries (claimed_by) WHERE claimed_by IS NOT NULL;
CREATE INDEX delivery_by_user ON deliveries (notification, user_id);
CREATE INDEX delivery_open ON deliveries (notification) WHERE state IN ('held', 'queued');

-- Passes of credentials, sealed, so that a restart does not ask for new ones.
CREATE TABLE passes (
    name TEXT PRIMARY KEY NOT NULL,
    text TEXT NOT NULL
) STRICT, WITHOUT ROWID;
