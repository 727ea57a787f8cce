-- Writes rows one by one, each of which may fail alone: `statements` write the rows of a JSON array and return what is not as it was meant, `kinds` names the statement of each row.
-- Many that fail would otherwise each cost several round trips to find.
CREATE FUNCTION replication.try_each(statements text[], kinds integer[], data json)
  RETURNS TABLE (n integer, state text, message text, detail text) LANGUAGE plpgsql AS $$
DECLARE
  given record;
  odd integer;
BEGIN
  FOR given IN SELECT e.value AS row, e.ordinality AS place FROM json_array_elements(data) WITH ORDINALITY AS e LOOP
    BEGIN
      SET CONSTRAINTS ALL DEFERRED;
      EXECUTE statements[kinds[given.place]] INTO odd USING json_build_array(given.row);
      IF odd IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'RQ001', MESSAGE = 'not as it was meant';
      END IF;
      SET CONSTRAINTS ALL IMMEDIATE;
    EXCEPTION WHEN integrity_constraint_violation OR data_exception OR raise_exception OR SQLSTATE 'RQ001' THEN
      GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL;
      n := given.place - 1;
      RETURN NEXT;
    END;
  END LOOP;
END $$;
