-- The same for whoever does not wait for the state lock: nulls where somebody else has it.
CREATE FUNCTION replication.begin_change_if_free(
  OUT incarnation text, OUT clock bigint, OUT aside boolean, OUT claimed boolean, OUT deferred boolean, OUT last_place bigint, OUT generation bigint, OUT root_changes bigint
) LANGUAGE plpgsql AS $$
BEGIN
  IF NOT pg_try_advisory_xact_lock(x'7265706c69717565'::bigint) THEN RETURN; END IF;
  SELECT b.* INTO incarnation, clock, aside, claimed, deferred, last_place, generation, root_changes FROM replication.begin_change() AS b;
END $$;
