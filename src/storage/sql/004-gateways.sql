-- Several gateways (processes) of one replica over one database: which of them leads, where the peers are, and what was last seen of them.

-- Where the peers are.
CREATE TABLE replication.address (
  name  text PRIMARY KEY,
  url   text NOT NULL UNIQUE,
  -- PEERS named it at the last start of a gateway; otherwise it was added while running.
  named boolean NOT NULL
);

-- What was last seen of a peer by whichever gateway had to do with it.
ALTER TABLE replication.peer
  ADD COLUMN state text NOT NULL DEFAULT 'UNKNOWN',
  ADD COLUMN consistency double precision;

-- The lease of the gateway that leads: one row. Who holds the lock leads; the lease tells whether it is still awake.
CREATE TABLE replication.leader (
  one        boolean PRIMARY KEY DEFAULT true CHECK (one),
  pid        integer NOT NULL,
  renewed_at bigint NOT NULL             -- microseconds since 1970
);

CREATE FUNCTION replication.leader_lock() RETURNS bigint IMMUTABLE LANGUAGE sql AS $$ SELECT x'7265706c6c656164'::bigint $$;

-- Takes the lead where nobody has it, lease included: a process that is stopped right afterwards is one with a lease that goes stale.
CREATE FUNCTION replication.try_lead() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
  IF NOT pg_try_advisory_lock(replication.leader_lock()) THEN RETURN false; END IF;
  INSERT INTO replication.leader (pid, renewed_at) VALUES (pg_backend_pid(), replication.clock())
  ON CONFLICT (one) DO UPDATE SET pid = excluded.pid, renewed_at = excluded.renewed_at;
  RETURN true;
END $$;

-- The same, waiting for the lock. Not without end: a statement that waits holds back the horizon of VACUUM, and CREATE INDEX CONCURRENTLY waits for it.
CREATE FUNCTION replication.await_lead() RETURNS boolean LANGUAGE plpgsql SET lock_timeout = '2s' AS $$
BEGIN
  PERFORM pg_advisory_lock(replication.leader_lock());
  INSERT INTO replication.leader (pid, renewed_at) VALUES (pg_backend_pid(), replication.clock())
  ON CONFLICT (one) DO UPDATE SET pid = excluded.pid, renewed_at = excluded.renewed_at;
  RETURN true;
EXCEPTION WHEN lock_not_available THEN
  -- Caught, so that waiting leaves no errors in the server's log.
  RETURN false;
END $$;

-- Ends the session of a leader whose lease is older than so many seconds: its process is stopped, or cut off from the database.
CREATE FUNCTION replication.depose(stale_seconds double precision) RETURNS boolean LANGUAGE sql AS $$
  SELECT coalesce(bool_or(pg_terminate_backend(l.pid)), false)
    FROM replication.leader s
    JOIN pg_locks l ON l.pid = s.pid AND l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
   WHERE l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
     AND (l.classid::bigint << 32 | l.objid::bigint) = replication.leader_lock()
     AND s.renewed_at < replication.clock() - stale_seconds * 1e6
$$;

-- False where this session is not the one that leads: it never was, or a pooler has put another under it.
CREATE FUNCTION replication.renew_lead() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
  UPDATE replication.leader SET renewed_at = replication.clock() WHERE pid = pg_backend_pid();
  RETURN FOUND;
END $$;
