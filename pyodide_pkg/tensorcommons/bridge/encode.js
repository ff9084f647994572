// A batch of texts to token ids in one call from Python, because each call through a proxy costs more than a short text.
// Imports nothing (it is also loaded from a data: URL): the @huggingface/tokenizers module comes in as an argument.

/** A tokenizer from the text of tokenizer.json and tokenizer_config.json. */
export function create(tokenizers, tokenizerJson, configJson) {
  return new tokenizers.Tokenizer(JSON.parse(tokenizerJson), JSON.parse(configJson));
}

/**
 * The ids of each text, without special tokens, padding or truncation: those are decided in Python.
 * @param {string} textsJson an array of n strings
 * @returns {Int32Array} n lengths, then the ids of all texts one after another
 */
export function encodeBatch(tokenizer, textsJson) {
  const rows = JSON.parse(textsJson).map((text) => tokenizer.encode(text, { add_special_tokens: false }).ids);
  const packed = new Int32Array(rows.reduce((total, ids) => total + ids.length, rows.length));
  let offset = rows.length;
  rows.forEach((ids, row) => {
    packed[row] = ids.length;
    packed.set(ids, offset);
    offset += ids.length;
  });
  return packed;
}

/** The text of each array of ids, as JSON. Tokens that cleaning up would change stay as they are. */
export function decodeBatch(tokenizer, rowsJson, skipSpecialTokens) {
  const options = { skip_special_tokens: skipSpecialTokens, clean_up_tokenization_spaces: false };
  return JSON.stringify(JSON.parse(rowsJson).map((ids) => (ids.length ? tokenizer.decode(ids, options) : "")));
}

/** The tokens of an array of ids, as JSON; null for an id that the vocabulary does not have. */
export function tokensOf(tokenizer, idsJson) {
  return JSON.stringify(JSON.parse(idsJson).map((id) => tokenizer.id_to_token(id) ?? null));
}

/** The ids of an array of tokens, as JSON; null for what the vocabulary does not have. */
export function idsOf(tokenizer, tokensJson) {
  return JSON.stringify(JSON.parse(tokensJson).map((token) => tokenizer.token_to_id(token) ?? null));
}
