"""binance-connector for Python against the exchange at REST and WebSocket URLs: raw and combined streams, and REST in both units."""
import json
import sys
import time

from binance.spot import Spot
from binance.websocket.spot.websocket_stream import SpotWebsocketStreamClient

REST, WS = sys.argv[1:3]

client = Spot(api_key='key', base_url=REST)
client.ping()
recent = client.trades('BTCUSDT', limit=5)
assert len(recent) == 5 and len(str(recent[0]['time'])) == 13, recent
client.session.headers['X-MBX-TIME-UNIT'] = 'MICROSECOND'
fine = client.historical_trades('BTCUSDT', limit=1, fromId=recent[0]['id'])
assert fine[0]['id'] == recent[0]['id'] and fine[0]['time'] // 1000 == recent[0]['time'], fine
assert len(client.agg_trades('BTCUSDT', limit=5)) == 5
assert client.exchange_info('BTCUSDT')['symbols'][0]['symbol'] == 'BTCUSDT'

for is_combined in (False, True):
    received = []
    streams = SpotWebsocketStreamClient(
        stream_url=WS, on_message=lambda _, text: received.append(json.loads(text)), is_combined=is_combined
    )
    streams.trade(symbol='btcusdt')
    streams.book_ticker(symbol='ethusdt')
    until = time.monotonic() + 20
    while time.monotonic() < until:
        events = [one['data'] if 'data' in one else one for one in list(received)]
        if any(one.get('e') == 'trade' for one in events) and any('u' in one for one in events):
            break
        time.sleep(0.05)
    else:
        raise SystemExit(f'only {received[:5]}')
    assert all(('stream' in one) == is_combined for one in received if 'result' not in one), received[:5]
    streams.stop()
print('binance-connector: well')
