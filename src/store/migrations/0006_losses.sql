-- What was stored last, in the last epoch that there is, and the epoch of a time: asked for when messages were lost, and by
-- `dead-letters retry`. Hardly an exchange ever begins its ids anew: of epoch 0, which nearly all rows are of, this holds nothing.
CREATE INDEX trades_later_epochs ON trades (symbol, event_type, epoch, trade_id) WHERE epoch > 0;
