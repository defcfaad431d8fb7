"""python-binance against the exchange at REST and WebSocket URLs: raw and combined streams, and REST."""
import asyncio
import sys

from binance import AsyncClient, BinanceSocketManager
from binance.ws import constants, streams

REST, WS = sys.argv[1:3]


async def receive(socket, count):
    async with socket as stream:
        return [await asyncio.wait_for(stream.recv(), 20) for _ in range(count)]


async def main():
    AsyncClient.API_URL = REST + '/api'
    streams.BinanceSocketManager.STREAM_URL = WS + '/'
    client = AsyncClient(api_key='key')
    client.API_URL = REST + '/api'
    await client.ping()
    assert (await client.get_server_time())['serverTime'] > 0
    info = await client.get_exchange_info()
    assert any(one['symbol'] == 'BTCUSDT' for one in info['symbols'])
    recent = await client.get_recent_trades(symbol='BTCUSDT', limit=5)
    assert len(recent) == 5
    older = await client.get_historical_trades(symbol='BTCUSDT', limit=5, fromId=recent[0]['id'] - 5)
    assert older[-1]['id'] == recent[0]['id'] - 1
    manager = BinanceSocketManager(client)
    manager.STREAM_URL = WS + '/'
    for event in await receive(manager.trade_socket('BTCUSDT'), 3):
        assert event['e'] == 'trade' and event['s'] == 'BTCUSDT', event
    for event in await receive(manager.symbol_book_ticker_socket('BTCUSDT'), 3):
        assert event['s'] == 'BTCUSDT' and 'u' in event, event
    for frame in await receive(manager.multiplex_socket(['btcusdt@aggTrade', 'ethusdt@trade']), 3):
        assert frame['stream'] in ('btcusdt@aggTrade', 'ethusdt@trade') and 'data' in frame, frame
    await client.close_connection()


asyncio.run(main())
print('python-binance: well')
