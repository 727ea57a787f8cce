-- The next places in the feed.

-- True of what a peer is to get: not of what it has sent itself, nor of a record without a state. Whether a state is empty is told without unpacking a large one.
CREATE FUNCTION replication.is_wanted(origin text, versions json, peer text) RETURNS boolean STABLE LANGUAGE sql AS $$
  SELECT origin IS DISTINCT FROM peer AND NOT (pg_column_size(versions) < 8 AND versions::text = '[]')
$$;

-- The next places behind one, at most so many: how many there are, the last of them, and the first that the peer wants. In the order of the index, whatever the statistics say of a table that has
-- just grown: by them the whole of it would be read and sorted for each batch.
CREATE FUNCTION replication.next_places(after bigint, most integer, models text[], peer text, OUT places bigint, OUT last bigint, OUT first bigint) STABLE LANGUAGE plpgsql SET enable_sort = off AS $$
BEGIN
  SELECT count(*), max(p.position), min(p.position) FILTER (WHERE p.wanted) INTO places, last, first
    FROM (SELECT r.position, replication.is_wanted(r.origin, r.versions, peer) AS wanted FROM replication.record r WHERE r.position > after AND r.model = ANY (models) ORDER BY r.position LIMIT most) AS p;
END $$;
