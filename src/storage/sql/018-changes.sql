-- Fails a statement that finds what must not be: whoever asked goes on without waiting for its answer, and has all of the transaction taken back.
CREATE FUNCTION replication.refuse(what text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = 'RQ001', MESSAGE = what;
END $$;

-- The same as before, and all else that a transaction which changes states has to know, in one answer: whether a record may claim a unique value that its row does not tell, whether a collision may not
-- be told yet, the last place in the feed, and how often records were forgotten and roots have changed.
DROP FUNCTION replication.begin_change();
CREATE FUNCTION replication.begin_change(
  OUT incarnation text, OUT clock bigint, OUT aside boolean, OUT claimed boolean, OUT deferred boolean, OUT last_place bigint, OUT generation bigint, OUT root_changes bigint
) LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_advisory_xact_lock(x'7265706c69717565'::bigint);
  PERFORM set_config('replication.applying', 'on', true);
  -- Statements of their own: what the last holder of the lock has done is seen from here on.
  incarnation := replication.incarnation();
  clock := replication.clock();
  SELECT EXISTS (SELECT FROM replication.aside), EXISTS (SELECT FROM replication.claim), EXISTS (SELECT FROM replication.deferral), CASE WHEN p.is_called THEN p.last_value ELSE p.last_value - 1 END, c.generation, c.root_changes
    INTO aside, claimed, deferred, last_place, generation, root_changes
    FROM replication.position AS p, replication.collection AS c;
  IF NOT EXISTS (SELECT FROM replication.era AS e WHERE e.incarnation = begin_change.incarnation) THEN
    INSERT INTO replication.era (incarnation, first) VALUES (begin_change.incarnation, last_place + 1);
  END IF;
END $$;
