-- Why a peer is not connected, in words for the operator.
ALTER TABLE replication.peer ADD COLUMN reason text;
