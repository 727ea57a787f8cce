-- The incarnation for the plans that sessions keep of capture's statements: asked for as they are planned, not for each line. Not immutable in truth: a server's start is the same for as long as a session lives, but the
-- file of replication.replica is not. So it stands only beside a condition that names that table, which has plans made anew when the table gets another file.
CREATE FUNCTION replication.planned_incarnation() RETURNS text IMMUTABLE LANGUAGE sql AS $$
  SELECT replication.incarnation()
$$;
